package gateway_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
	"github.com/headgate-io/headgate/gateway/pki"
)

// signRequest is a renewal command: the CA in dir signs for a few seconds.
func signRequest(dir, request, output string) {
	must := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	ca, err := tls.LoadX509KeyPair(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
	must(err)
	text, err := os.ReadFile(request)
	must(err)
	block, _ := pem.Decode(text)
	req, err := x509.ParseCertificateRequest(block.Bytes)
	must(err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), RawSubject: req.RawSubject, URIs: req.URIs,
		NotBefore: time.Now().Add(-time.Second), NotAfter: time.Now().Add(10 * time.Second),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, ca.Leaf, req.PublicKey, ca.PrivateKey)
	must(err)
	must(os.WriteFile(output, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
}

// newRenewingSite has one link, without a certificate yet.
func newRenewingSite(t *testing.T, cloud *cloud) *site {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{dir: t.TempDir(), plain: freePort(t)}
	s.config = filepath.Join(s.dir, "headgate.yaml")
	text := fmt.Sprintf(`version: 1
gateway: {id: site-1, data: data}
admin: {address: ""}
broker: {listeners: [{address: "127.0.0.1:%d", plaintext: true, anonymous_as: local}]}
access: {rules: [{allow: [publish, subscribe], who: "*", topics: ["plant/#"]}]}
northbound:
  - name: cloud
    servers: ["mqtts://localhost:%d"]
    ca: %[3]s/ca.crt
    certificate: gw.crt
    key: gw.key
    client_id: gw
    send: [{topics: ["plant/#"]}]
    renew: {at: 0.4, command: [%q, %[3]q]}
`, s.plain, cloud.port, cloud.dir, self)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// A link whose certificates live for ten seconds renews them by itself, from the
// first one on, and connects anew with each: under load nothing is lost.
func TestRenewalUnderLoad(t *testing.T) {
	cloud := newCloud(t, "")
	cloud.start(t)
	var mu sync.Mutex // covers arrived
	arrived := map[string]int{}
	cloud.watch(t, func(m *client.Message) {
		if strings.HasPrefix(m.Topic, "plant/") {
			mu.Lock()
			arrived[string(m.Payload)]++
			mu.Unlock()
		}
	})
	s := newRenewingSite(t, cloud)
	g := startGateway(t, s.config)
	c := dial(t, client.Options{Address: fmt.Sprintf("127.0.0.1:%d", s.plain), ClientID: "press"})
	sent := 0
	serials := map[string]bool{}
	anew := func() int { return strings.Count(g.log(t), "connects anew with changed certificates") }
	for deadline := time.Now().Add(60 * time.Second); len(serials) < 4 || anew() < 2; sent++ { // the first link may come late
		if time.Now().After(deadline) {
			t.Fatalf("%d certificates and %d new connections in 60 s", len(serials), anew())
		}
		if err := c.Publish(t.Context(), client.Message{Topic: "plant/press/x", Payload: fmt.Append(nil, sent), QoS: 1}); err != nil {
			t.Fatal(err)
		}
		if info, err := pki.Inspect(filepath.Join(s.dir, "gw.crt")); err == nil {
			serials[info.Serial] = true
		}
	}
	waitFor(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(arrived) == sent
	})
	repeats := 0
	for _, times := range arrived {
		repeats += times - 1
	}
	if strings.Count(g.log(t), "no link to the cloud") > 1 { // the first one comes after the start
		t.Error("the link was down between its certificates")
	}
	if repeats > 100 { // what the cloud has not answered within a second comes again
		t.Errorf("%d messages came again", repeats)
	}
	t.Logf("%d messages, %d certificates, %d new connections: 0 lost, %d came again", sent, len(serials), anew(), repeats)
}
