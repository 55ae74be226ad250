package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

func fetch(ctx context.Context, words []string) error {
	if len(words) < 3 {
		return fmt.Errorf("peer fetch URL TD FILE [ID]")
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	domain, err := spiffeid.TrustDomainFromString(words[1])
	if err != nil {
		return err
	}
	option, err := proof(domain, words[2:])
	if err != nil {
		return err
	}
	bundle, err := federation.FetchBundle(ctx, domain, words[0], option)
	if err != nil {
		return err
	}
	roots := []string{}
	for _, root := range bundle.X509Authorities() {
		sum := sha256.Sum256(root.Raw)
		roots = append(roots, hex.EncodeToString(sum[:]))
	}
	keys := []string{}
	for name := range bundle.JWTAuthorities() {
		keys = append(keys, name)
	}
	sequence, _ := bundle.SequenceNumber()
	hint, _ := bundle.RefreshHint()
	written, err := bundle.Marshal()
	if err != nil {
		return err
	}
	return tell(map[string]any{
		"roots": roots, "keys": keys, "sequence": sequence, "hint": hint.Seconds(), "written": string(written),
	})
}

func proof(domain spiffeid.TrustDomain, words []string) (federation.FetchOption, error) {
	if len(words) == 1 {
		pem, err := os.ReadFile(words[0])
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		return federation.WithWebPKIRoots(pool), nil
	}
	held, err := spiffebundle.Load(domain, words[0])
	if err != nil {
		return nil, err
	}
	id, err := spiffeid.FromString(words[1])
	if err != nil {
		return nil, err
	}
	return federation.WithSPIFFEAuth(held, id), nil
}

func endpoint(words []string) error {
	if len(words) != 4 {
		return fmt.Errorf("peer endpoint TD FILE CERTIFICATE KEY")
	}
	domain, err := spiffeid.TrustDomainFromString(words[0])
	if err != nil {
		return err
	}
	bundle, err := spiffebundle.Load(domain, words[1])
	if err != nil {
		return err
	}
	handler, err := federation.NewHandler(domain, bundle)
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(words[2], words[3])
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("listening", listener.Addr().(*net.TCPAddr).Port)
	server := &http.Server{
		Handler:           handler,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 10 * time.Second,
	}
	return server.ServeTLS(listener, "", "")
}
