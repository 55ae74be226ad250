// A workload written with go-spiffe, for the tests: what it is told by the Workload API, and mutual TLS by it.
//
//	peer calls AUDIENCE       every method of the Workload API once; what they say, as JSON
//	peer serve ID             HTTPS for whoever proves ID; says "listening PORT", and for each certificate "svid SERIAL"
//	peer ask URL ID N         N requests to a server that proves ID, a connection each, while rotations come
//	peer agent SOCKET LIFE    a Workload API of its own, with a CA in memory; certificates live for LIFE
//	peer fetch URL TD FILE ID a bundle by https_spiffe, beginning with the one in FILE; without ID by https_web, whose
//	                          CAs are in FILE; what is in it, and then how go-spiffe writes it
//	peer endpoint TD FILE CERTIFICATE KEY   serves the bundle in FILE; says "listening PORT"
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(words []string) error {
	if len(words) < 2 {
		return fmt.Errorf("peer calls|serve|ask|agent|fetch|endpoint …")
	}
	ctx := context.Background()
	switch words[0] {
	case "calls":
		return calls(ctx, words[1])
	case "serve":
		return serve(ctx, words[1])
	case "ask":
		return ask(ctx, words[1], words[2], words[3])
	case "agent":
		return agent(words[1], words[2])
	case "fetch":
		return fetch(ctx, words[1:])
	case "endpoint":
		return endpoint(words[1:])
	}
	return fmt.Errorf("%s is not known", words[0])
}

func tell(what map[string]any) error { return json.NewEncoder(os.Stdout).Encode(what) }

// newSource follows the Workload API; of several identities it shows the one of $SPIFFE_ID, else the first.
func newSource(ctx context.Context) (*workloadapi.X509Source, error) {
	wanted := os.Getenv("SPIFFE_ID")
	return workloadapi.NewX509Source(ctx, workloadapi.WithDefaultX509SVIDPicker(func(svids []*x509svid.SVID) *x509svid.SVID {
		for _, svid := range svids {
			if svid.ID.String() == wanted {
				return svid
			}
		}
		return svids[0]
	}))
}

func calls(ctx context.Context, audience string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	client, err := workloadapi.New(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	x509, err := client.FetchX509Context(ctx)
	if err != nil {
		return fmt.Errorf("FetchX509Context: %w", err)
	}
	bundles, err := client.FetchX509Bundles(ctx)
	if err != nil {
		return fmt.Errorf("FetchX509Bundles: %w", err)
	}
	svid, err := client.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience})
	if err != nil {
		return fmt.Errorf("FetchJWTSVID: %w", err)
	}
	keys, err := client.FetchJWTBundles(ctx)
	if err != nil {
		return fmt.Errorf("FetchJWTBundles: %w", err)
	}
	valid, err := client.ValidateJWTSVID(ctx, svid.Marshal(), audience)
	if err != nil {
		return fmt.Errorf("ValidateJWTSVID: %w", err)
	}
	if _, err := jwtsvid.ParseAndValidate(svid.Marshal(), keys, []string{audience}); err != nil {
		return fmt.Errorf("go-spiffe's own judgement: %w", err)
	}
	_, otherwise := client.ValidateJWTSVID(ctx, svid.Marshal(), audience+"-of-others")
	return tell(map[string]any{
		"id": x509.DefaultSVID().ID.String(), "chain": len(x509.DefaultSVID().Certificates),
		"bundles": bundles.Len(), "jwt": svid.ID.String(), "keys": keys.Len(), "valid": valid.ID.String(),
		"refused": otherwise != nil,
	})
}

func serve(ctx context.Context, id string) error {
	peer, err := spiffeid.FromString(id)
	if err != nil {
		return err
	}
	source, err := newSource(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("listening", listener.Addr().(*net.TCPAddr).Port)
	server := &http.Server{
		TLSConfig: tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeID(peer)),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"peer": %q}`, r.TLS.PeerCertificates[0].URIs[0].String())
		}),
	}
	return server.ServeTLS(listener, "", "")
}

func ask(ctx context.Context, url, id, count string) error {
	peer, err := spiffeid.FromString(id)
	if err != nil {
		return err
	}
	least, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	rotations, _ := strconv.Atoi(os.Getenv("ROTATIONS"))
	source, err := newSource(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	ours, theirs, asked := map[string]bool{}, map[string]bool{}, 0
	config := tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(peer))
	shown := config.GetClientCertificate
	config.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		certificate, err := shown(info)
		if err == nil {
			ours[certificate.Leaf.SerialNumber.String()] = true
		}
		return certificate, err
	}
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		TLSClientConfig: config, DisableKeepAlives: true,
	}}
	until := time.Now().Add(5 * time.Minute)
	for asked < least || len(ours) <= rotations {
		if time.Now().After(until) {
			return fmt.Errorf("%d certificates in %d requests", len(ours), asked)
		}
		answer, err := client.Get(url)
		if err != nil {
			return fmt.Errorf("request %d: %w", asked, err)
		}
		_, err = io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK {
			return fmt.Errorf("request %d: status %d, %v", asked, answer.StatusCode, err)
		}
		theirs[answer.TLS.PeerCertificates[0].SerialNumber.String()] = true
		asked++
	}
	return tell(map[string]any{"asked": asked, "ours": len(ours), "theirs": len(theirs)})
}
