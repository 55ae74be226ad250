// Signs a CSR as step-ca does, by its own templates: STEP CSR ROOT-CERTIFICATE ROOT-KEY TEMPLATE
package main

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"time"

	"go.step.sm/crypto/x509util"
)

func block(path string) []byte {
	data, err := os.ReadFile(path)
	check(err)
	found, _ := pem.Decode(data)
	return found.Bytes
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	csr, err := x509.ParseCertificateRequest(block(os.Args[1]))
	check(err)
	root, err := x509.ParseCertificate(block(os.Args[2]))
	check(err)
	key, err := x509.ParsePKCS8PrivateKey(block(os.Args[3]))
	check(err)
	template, err := os.ReadFile(os.Args[4])
	check(err)
	data := x509util.CreateTemplateData(csr.Subject.CommonName, nil)
	data.SetSubject(x509util.Subject{})
	made, err := x509util.NewCertificate(csr, x509util.WithTemplate(string(template), data))
	check(err)
	leaf := made.GetCertificate()
	leaf.NotBefore = time.Now().Add(-time.Minute)
	leaf.NotAfter = time.Now().Add(200 * 24 * time.Hour)
	signer := key.(crypto.Signer)
	signed, err := x509util.CreateCertificate(leaf, root, csr.PublicKey, signer)
	check(err)
	check(pem.Encode(os.Stdout, &pem.Block{Type: "CERTIFICATE", Bytes: signed.Raw}))
}
