package gateway_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"strings"
	"time"
)

// of shows a leaf of the lab's CA that change has made wrong.
func (l *lab) of(change func(*x509.Certificate)) string { return l.tls(l.leaf(change).shown()) }

func ended(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
func notYet(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(9*time.Hour)
}

func (l *lab) weakKey() *rsa.PrivateKey {
	l.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		l.t.Fatal(err)
	}
	return key
}

// revoked is a list of the lab's CA.
func (i *issuer) revoked(l *lab, serials ...*big.Int) string {
	l.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
	for _, s := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: s, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, i.cert, i.key)
	if err != nil {
		l.t.Fatal(err)
	}
	return block("X509 CRL", der)
}

// wrongServers show one certificate.
func (l *lab) wrongServers() []wrong {
	var nobody *issuer
	other := nobody.issue(l.t, "Other CA", nil, authority)
	namesake := nobody.issue(l.t, "Cloud CA", nil, authority)
	stolen := l.leaf(nil)
	swapped := l.leaf(nil).shown()
	swapped.Certificates[0].PrivateKey = stolen.key
	return []wrong{
		{name: "expired", server: l.of(ended), fault: "the server's certificate is valid from", cure: "have it renewed"},
		{name: "not-yet-valid", server: l.of(notYet), fault: "the server's certificate is valid from", cure: "set the gateway's clock"},
		{name: "unknown-ca", server: l.tls(other.issue(l.t, "cloud", nil, nil).shown()), fault: `not signed by a CA (it names "CN=Other CA")`, cure: "into the file named by ca"},
		{name: "ca-of-the-same-name", server: l.tls(namesake.issue(l.t, "cloud", nil, nil).shown()), fault: "not signed by a CA", cure: "into the file named by ca"},
		{name: "other-name", server: l.of(func(c *x509.Certificate) { c.IPAddresses = nil }), fault: "is for cloud.example, not for 127.0.0.1", cure: "correct the name in servers"},
		{name: "other-address", server: l.of(func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = []net.IP{{192, 0, 2, 1}}, nil }), fault: "is for 192.0.2.1, not for 127.0.0.1", cure: "correct the name in servers"},
		{name: "address-as-common-name", server: l.of(func(c *x509.Certificate) {
			c.Subject.CommonName, c.IPAddresses, c.DNSNames = "127.0.0.1", nil, nil
		}), fault: "is for no name at all, not for 127.0.0.1", cure: "have it issued for that name"},
		{name: "other-server-name", more: ", server_name: other.example", fault: "is for cloud.example, 127.0.0.1, not for other.example", cure: "correct the name"},
		{name: "made-for-clients", server: l.of(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }), fault: "not made for servers (serverAuth)", cure: "have it issued with that extended key usage"},
		{name: "weak-key", server: l.tls(l.ca.issue(l.t, "cloud", l.weakKey(), nil).shown()), fault: "the server's certificate is refused: CN=cloud: the key is too weak", cure: "use ECDSA on P-256 or larger"},
		{name: "sha-1", server: l.of(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA1 }), fault: "signed with SHA-1", cure: "have it issued anew with SHA-256"},
		{name: "revoked", server: l.tls(stolen.shown()), files: map[string]string{"crl": l.ca.revoked(l, stolen.cert.SerialNumber)}, fault: "was revoked by CN=Cloud CA", cure: "have a new one issued"},
		{name: "self-signed", server: l.tls(nobody.issue(l.t, "cloud", nil, nil).shown()), fault: "signed by itself", cure: "have it issued by a CA"},
		{name: "key-of-another", server: l.tls(swapped), fault: "key does not match the certificate", cure: "put the key there that the certificate was made for"},
	}
}

// wrongChains show more than one certificate, or should.
func (l *lab) wrongChains() []wrong {
	middle := l.ca.issue(l.t, "Middle CA", nil, authority)
	stranger := l.ca.issue(l.t, "Stranger CA", nil, authority)
	namesake := l.ca.issue(l.t, "Middle CA", nil, authority)
	tenant := l.ca.issue(l.t, "tenant", nil, nil)
	old := l.ca.issue(l.t, "Old CA", nil, func(c *x509.Certificate) { authority(c); ended(c) })
	short := l.ca.issue(l.t, "Short CA", nil, func(c *x509.Certificate) { authority(c); c.MaxPathLenZero = true })
	beyond := short.issue(l.t, "Beyond CA", nil, authority)
	deep := middle.issue(l.t, "Deep CA", nil, authority)
	narrow := l.ca.issue(l.t, "Narrow CA", nil, func(c *x509.Certificate) {
		authority(c)
		c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"other.example"}
	})
	under := func(i *issuer, chain ...*issuer) string {
		return l.tls(i.issue(l.t, "cloud", nil, nil).shown(chain...))
	}
	const right = "put the right intermediate certificate into the server's file"
	return []wrong{
		{name: "intermediate-missing", server: under(middle), fault: `not signed by a CA (it names "CN=Middle CA") that we trust`, cure: "the server has to send its whole chain"},
		{name: "intermediate-of-another", server: under(middle, stranger), fault: "the server sends CN=Stranger CA as the CA of its certificate, which is signed by CN=Middle CA", cure: right},
		{name: "intermediate-of-the-same-name", server: under(middle, namesake), fault: "CN=Middle CA that did not sign its certificate", cure: right},
		{name: "signed-by-no-ca", server: under(tenant, tenant), fault: "was signed by CN=tenant, which is no CA", cure: "have it issued by a CA"},
		{name: "intermediate-expired", server: under(old, old), fault: "the certificate of CN=Old CA is valid from", cure: "have it renewed"},
		{name: "path-length", server: under(beyond, beyond, short), fault: "longer than its CA allows (path length)", cure: "have its certificate issued by the CA itself"},
		{name: "name-constraint", server: under(narrow, narrow), fault: "may not vouch for that name (name constraints)", cure: "have its certificate issued by a CA that may"},
		{name: "chain-of-four", server: under(deep, deep, middle), fault: "chain has 4 certificates", cure: "at most 3 are allowed"},
		{name: "list-of-no-help", server: under(middle, middle), files: map[string]string{"crl": l.ca.revoked(l)}, fault: "no revocation list of CN=Middle CA", cure: "add the list of that CA"},
	}
}

// wrongProtocols are servers that do not speak what we speak.
func (l *lab) wrongProtocols() []wrong {
	old, cbc, other := l.leaf(nil).shown(), l.leaf(nil).shown(), l.leaf(nil).shown()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	cbc.MaxVersion, cbc.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
	other.NextProtos = []string{"h2"}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	closed.Close()
	hang := func(nc net.Conn) { nc.Read(make([]byte, 1)); nc.Read(make([]byte, 1<<16)); nc.Read(make([]byte, 1)) }
	return []wrong{
		{name: "plain-mqtt", server: l.says("\x20\x03\x00\x84\x00"), fault: "does not speak TLS on this port", cure: "correct the port in servers"},
		{name: "http", server: l.says("HTTP/1.1 400 Bad Request\r\n\r\n"), fault: "does not speak TLS on this port", cure: "correct the port in servers"},
		{name: "garbage", server: l.says(strings.Repeat("\xa5\x5a", 500)), fault: "does not speak TLS on this port", cure: "correct the port in servers"},
		{name: "closes", server: l.says(""), fault: "closed the connection in the TLS handshake", cure: "correct the port in servers"},
		{name: "closes-within", server: l.says("\x16\x03\x03\x01\x00\x02"), fault: "closed the connection in the TLS handshake", cure: "see the server's log"},
		{name: "hangs", server: l.listen(hang), fault: "does not answer the TLS handshake in time", cure: "correct the port in servers"},
		{name: "tls-1.1", server: l.tls(old), fault: "protocol version not supported", cure: "have TLS 1.2 or 1.3 enabled there"},
		{name: "cbc", server: l.tls(cbc), fault: "handshake failure", cure: "have ECDHE with AES-GCM or ChaCha20 enabled there"},
		{name: "other-alpn", server: l.tls(other), more: ", alpn: [mqtt]", fault: "no application protocol", cure: "correct alpn"},
		{name: "nobody", server: closed.Addr().String(), fault: "nothing listens on port", cure: "check port and server"},
	}
}

// alertsOfServers are what servers have against our certificate.
func (l *lab) alertsOfServers() []wrong {
	var nobody *issuer
	demands := func(ca *issuer, change func(*tls.Config)) string {
		cfg := l.leaf(nil).shown()
		cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		cfg.ClientCAs.AddCert(ca.cert)
		if change != nil {
			change(cfg)
		}
		return l.tls(cfg)
	}
	later := func(c *tls.Config) { c.Time = func() time.Time { return time.Now().AddDate(5, 0, 0) } }
	denies := func(c *tls.Config) {
		c.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { return errors.New("not registered") }
	}
	const signed = "have our certificate signed by the CA that the server trusts"
	return []wrong{
		{name: "asks-for-another-ca", server: demands(nobody.issue(l.t, "Tenants CA", nil, authority), nil), fault: "refused our certificate (unknown certificate authority)", cure: signed},
		{name: "finds-ours-expired", server: demands(l.ca, later), fault: "refused our certificate (expired certificate)", cure: "renew our certificate"},
		{name: "does-not-know-ours", server: demands(l.ca, denies), fault: "refused our certificate (bad certificate)", cure: signed},
		{name: "alert-bad-certificate", server: l.alerts(42), fault: "refused our certificate (bad certificate)", cure: signed},
		{name: "alert-unsupported", server: l.alerts(43), fault: "refused our certificate (unsupported certificate)", cure: "issued for clients (clientAuth)"},
		{name: "alert-revoked", server: l.alerts(44), fault: "refused our certificate (revoked certificate)", cure: "have a new certificate issued"},
		{name: "alert-unknown", server: l.alerts(46), fault: "refused our certificate (unknown certificate)", cure: signed},
		{name: "alert-access-denied", server: l.alerts(49), fault: "refused our certificate (access denied)", cure: "let our certificate in at the server"},
		{name: "alert-required", server: l.alerts(116), fault: "refused our certificate (certificate required)", cure: "set certificate and key of this link"},
		{name: "alert-unrecognized-name", server: l.alerts(112), fault: "ended TLS (unrecognized name)", cure: "set server_name"},
	}
}

// wrongFiles cannot be read for what they should be.
func (l *lab) wrongFiles() []wrong {
	crt, key := l.own.pem(), l.own.keyPEM(l.t)
	der := string(l.own.cert.Raw)
	legacy := "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n"
	only := func(name, text string) map[string]string { return map[string]string{name: text} }
	const passphrase = "remove it with openssl pkey"
	return []wrong{
		{name: "certificate-gone", files: only("crt", gone), fault: "no such file", cure: "put it there"},
		{name: "key-gone", files: only("key", gone), fault: "no such file", cure: "put it there"},
		{name: "ca-gone", files: only("ca", gone), fault: "no such file", cure: "put it there"},
		{name: "ca-empty", files: only("ca", ""), fault: "is empty", cure: "put the PEM text there"},
		{name: "certificate-empty", files: only("crt", " \n"), fault: "is empty", cure: "put the PEM text there"},
		{name: "certificate-der", files: only("crt", der), fault: "looks like DER", cure: "openssl x509 -inform DER"},
		{name: "key-der", files: only("key", der), fault: "looks like DER", cure: "openssl pkey -inform DER"},
		{name: "certificate-cut", files: only("crt", crt[:len(crt)/2]), fault: "no PEM block", cure: "convert it to PEM"},
		{name: "chain-cut", files: only("crt", crt+crt[:len(crt)/2]), fault: "is damaged after certificate 1", cure: "copy it again"},
		{name: "key-damaged", files: only("key", block("PRIVATE KEY", []byte("x"))), fault: "is damaged", cure: "copy it again"},
		{name: "key-encrypted", files: only("key", block("ENCRYPTED PRIVATE KEY", []byte("x"))), fault: "has a passphrase", cure: passphrase},
		{name: "key-encrypted-of-old", files: only("key", legacy), fault: "has a passphrase", cure: passphrase},
		{name: "key-open-to-others", keyMode: 0o644, fault: "is open to others (mode 0644)", cure: "run chmod 600"},
		{name: "swapped", files: map[string]string{"crt": key, "key": crt}, fault: "holds a PRIVATE KEY", cure: "put only certificates there"},
		{name: "certificate-for-key", files: only("key", crt), fault: "holds a CERTIFICATE", cure: "were certificate and key swapped?"},
		{name: "ca-is-no-ca", files: only("ca", crt), fault: "is not a CA", cure: "put only CA certificates there"},
		{name: "list-damaged", files: only("crl", block("X509 CRL", []byte("x"))), fault: "is damaged", cure: "copy it again"},
		{name: "list-of-another", files: only("crl", (*issuer)(nil).issue(l.t, "Other CA", nil, authority).revoked(l)), fault: "is not signed by a CA that is trusted here", cure: "take the list of that CA"},
	}
}

// wrongPairs are read and fail the staged check.
func (l *lab) wrongPairs() []wrong {
	var nobody *issuer
	middle := l.ca.issue(l.t, "Middle CA", nil, authority)
	mine := func(i *issuer, chain ...*issuer) map[string]string {
		text := i.pem()
		for _, c := range chain {
			text += c.pem()
		}
		return map[string]string{"crt": text, "key": i.keyPEM(l.t)}
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		l.t.Fatal(err)
	}
	namesake := nobody.issue(l.t, "Cloud CA", nil, authority)
	return []wrong{
		{name: "ours-expired", files: mine(l.leaf(ended)), fault: "expired on", cure: "put a new one in its place"},
		{name: "ours-not-yet-valid", files: mine(l.leaf(notYet)), fault: "is not valid before", cure: "correct the clock"},
		{name: "ours-for-servers", files: mine(l.leaf(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] })), fault: "is not made for clients (clientAuth)", cure: "issue it with that extended key usage"},
		{name: "ours-weak", files: mine(l.ca.issue(l.t, "gw", l.weakKey(), nil)), fault: "the key is too weak", cure: "RSA of 2048 bits or more"},
		{name: "ours-p-224", files: mine(l.ca.issue(l.t, "gw", p224, nil)), fault: "the key is too weak", cure: "use ECDSA on P-256 or larger"},
		{name: "ours-sha-1", files: mine(l.leaf(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA1 })), fault: "signed with SHA-1", cure: "have it issued anew with SHA-256"},
		{name: "ours-with-another-key", files: map[string]string{"key": l.leaf(nil).keyPEM(l.t)}, fault: "does not match certificate", cure: "put the key there that the certificate was made for"},
		{name: "ours-of-a-namesake", files: mine(namesake.issue(l.t, "gw", nil, nil)), fault: "names CN=Cloud CA as its issuer, but that CA did not sign it", cure: "have it signed by that CA"},
		{name: "our-chain-out-of-order", files: mine(middle.issue(l.t, "gw", nil, nil), l.ca, middle), fault: "(CN=Cloud CA) did not sign number 1", cure: "put the chain in order"},
		{name: "our-chain-with-a-namesake", files: mine(middle.issue(l.t, "gw", nil, nil), l.ca.issue(l.t, "Middle CA", nil, authority)), fault: "(CN=Middle CA) did not sign number 1", cure: "put the right intermediate there"},
		{name: "our-chain-expired", files: mine(middle.issue(l.t, "gw", nil, nil), l.ca.issue(l.t, "Middle CA", middle.key, func(c *x509.Certificate) { authority(c); ended(c) })), fault: "number 2 (CN=Middle CA) expired on", cure: "put the CA's new certificate there"},
		{name: "ca-expired", files: map[string]string{"ca": nobody.issue(l.t, "Cloud CA", nil, func(c *x509.Certificate) { authority(c); ended(c) }).pem()}, fault: "expired on", cure: "put a new one in its place"},
		{name: "ca-weak", files: map[string]string{"ca": nobody.issue(l.t, "Weak CA", l.weakKey(), authority).pem()}, fault: "the key is too weak", cure: "RSA of 2048 bits or more"},
	}
}
