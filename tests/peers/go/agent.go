package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const domain = "spiffe://go.example"

// authority is a CA in memory, whose root signs leaves itself, as SPIRE's does.
type authority struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	key  *ecdsa.PrivateKey
	root *x509.Certificate
	life time.Duration
}

func serial() *big.Int {
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err)
	}
	return number.Add(number, big.NewInt(1))
}

func newAuthority(life time.Duration) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	name, _ := url.Parse(domain)
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{Organization: []string{"go.example"}, CommonName: "root"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{name},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	root, err := x509.ParseCertificate(der)
	return &authority{key: key, root: root, life: life}, err
}

func (ca *authority) svid(path string) (*workload.X509SVID, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	name, _ := url.Parse(domain + path)
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{Organization: []string{"go.example"}},
		NotBefore: time.Now().Add(-10 * time.Second), NotAfter: time.Now().Add(ca.life), URIs: []*url.URL{name},
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.root, key.Public(), ca.key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	return &workload.X509SVID{
		SpiffeId: name.String(), X509Svid: der, X509SvidKey: pkcs8, Bundle: ca.root.Raw,
	}, err
}

// FetchX509SVID sends a fresh certificate at half of each one's life.
func (ca *authority) FetchX509SVID(
	_ *workload.X509SVIDRequest, stream grpc.ServerStreamingServer[workload.X509SVIDResponse],
) error {
	headers, _ := metadata.FromIncomingContext(stream.Context())
	if said := headers.Get("workload.spiffe.io"); len(said) != 1 || said[0] != "true" {
		return status.Error(codes.InvalidArgument, "security header missing from request")
	}
	for {
		first, err := ca.svid("/service/first")
		if err != nil {
			return err
		}
		second, err := ca.svid("/service/second")
		if err != nil {
			return err
		}
		err = stream.Send(&workload.X509SVIDResponse{Svids: []*workload.X509SVID{first, second}})
		if err != nil {
			return err
		}
		select {
		case <-time.After(ca.life / 2):
		case <-stream.Context().Done():
			return nil
		}
	}
}

// FetchX509Bundles sends the root, once.
func (ca *authority) FetchX509Bundles(
	_ *workload.X509BundlesRequest, stream grpc.ServerStreamingServer[workload.X509BundlesResponse],
) error {
	err := stream.Send(&workload.X509BundlesResponse{Bundles: map[string][]byte{domain: ca.root.Raw}})
	if err == nil {
		<-stream.Context().Done()
	}
	return err
}

func agent(socket, life string) error {
	lasting, err := time.ParseDuration(life)
	if err != nil {
		return err
	}
	ca, err := newAuthority(lasting)
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(server, ca)
	fmt.Fprintln(os.Stdout, "listening", socket)
	return server.Serve(listener)
}
