package northbound

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
)

func explainTLS(server string, err error) string {
	var (
		unverified *tls.CertificateVerificationError
		record     tls.RecordHeaderError
		remote     *net.OpError
	)
	switch {
	case errors.As(err, &unverified):
		return explainCertificate(unverified)
	case errors.As(err, &record):
		return "the server does not speak TLS on this port: correct the port in servers (8883 is usual)"
	case errors.As(err, &remote) && remote.Op == "remote error":
		return refusedUs(remote.Err.Error())
	case errors.Is(err, errHandshake):
		return explainHandshake(err)
	}
	return ""
}

// errHandshake marks what went wrong between TCP and MQTT.
var errHandshake = errors.New("TLS handshake")

// explainHandshake knows what crypto/tls tells apart by text only.
func explainHandshake(err error) string {
	var timeout net.Error
	text := err.Error()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "the server closed the connection in the TLS handshake: correct the port in servers (8883 is usual), or see the server's log"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "the server takes the connection and does not answer the TLS handshake in time: correct the port in servers, or see to the server and firewalls between"
	case strings.Contains(text, "invalid signature by the server certificate"):
		return "the server's key does not match the certificate that it shows: put the key there that the certificate was made for"
	case strings.Contains(text, "unsupported protocol version"):
		return "the server speaks TLS 1.1 or older: have TLS 1.2 or 1.3 enabled there"
	}
	return ""
}

// explainCertificate says what is wrong with what the server showed.
func explainCertificate(err *tls.CertificateVerificationError) string {
	var (
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
		name    x509.HostnameError
	)
	switch {
	case errors.As(err, &unknown):
		return explainChain(err.UnverifiedCertificates)
	case errors.As(err, &invalid):
		return explainInvalid(invalid)
	case errors.As(err, &name):
		return fmt.Sprintf("the server's certificate is for %s, not for %s: correct the name in servers, or have it issued for that name", names(name.Certificate), name.Host)
	}
	return "the server's certificate is refused: " + err.Err.Error()
}

// explainInvalid explains a chain that leads to a CA of ours and still is not
// right.
func explainInvalid(invalid x509.CertificateInvalidError) string {
	whose := fmt.Sprintf("the certificate of %s", invalid.Cert.Subject)
	if !invalid.Cert.IsCA {
		whose = "the server's certificate"
	}
	switch invalid.Reason {
	case x509.Expired:
		return fmt.Sprintf("%s is valid from %s to %s only: have it renewed, or set the gateway's clock",
			whose, invalid.Cert.NotBefore.Format("2006-01-02"), invalid.Cert.NotAfter.Format("2006-01-02"))
	case x509.IncompatibleUsage:
		return "the server's certificate is not made for servers (serverAuth): have it issued with that extended key usage"
	case x509.NotAuthorizedToSign:
		return whose + " was signed by one that is no CA: have it issued by a CA"
	case x509.TooManyIntermediates:
		return "the server's chain is longer than its CA allows (path length): have its certificate issued by the CA itself"
	case x509.CANotAuthorizedForThisName:
		return "the server's CA may not vouch for that name (name constraints): have its certificate issued by a CA that may"
	case x509.NameConstraintsWithoutSANs:
		return "the server's certificate has no subject alternative name: have it issued with the name in servers"
	}
	return whose + " is refused: " + strings.TrimPrefix(invalid.Error(), "x509: ")
}

// explainChain says why a chain, as the server sent it, leads to no CA of ours.
func explainChain(chain []*x509.Certificate) string {
	for i, c := range chain {
		self := bytes.Equal(c.RawIssuer, c.RawSubject)
		switch {
		case weakSignature(c) && !self:
			return fmt.Sprintf("the server shows a certificate (%s) signed with SHA-1, which can be forged: have it issued anew with SHA-256", c.Subject)
		case i == 0 && self:
			return fmt.Sprintf("the server's certificate (%s) is signed by itself, not by a CA: have it issued by a CA, whose certificate is in the file named by ca", c.Subject)
		case i == len(chain)-1:
			return noWay(c)
		case !bytes.Equal(c.RawIssuer, chain[i+1].RawSubject):
			return fmt.Sprintf("the server sends %s as the CA of its certificate, which is signed by %s: put the right intermediate certificate into the server's file", chain[i+1].Subject, c.Issuer)
		case !chain[i+1].IsCA:
			return fmt.Sprintf("the server's certificate was signed by %s, which is no CA: have it issued by a CA", c.Issuer)
		case c.CheckSignatureFrom(chain[i+1]) != nil:
			return fmt.Sprintf("the server sends a CA %s that did not sign its certificate: put the right intermediate certificate into the server's file", c.Issuer)
		}
	}
	return noWay(nil)
}

func noWay(last *x509.Certificate) string {
	const cure = "put the certificate of the cloud's CA into the file named by ca; if it is there, the server has to send its whole chain"
	if last == nil {
		return "the server shows no certificate that we trust: " + cure
	}
	return fmt.Sprintf("the server's certificate is not signed by a CA (it names %q) that we trust: %s", last.Issuer.String(), cure)
}

func weakSignature(c *x509.Certificate) bool {
	return c.SignatureAlgorithm == x509.SHA1WithRSA || c.SignatureAlgorithm == x509.ECDSAWithSHA1 || c.SignatureAlgorithm == x509.MD5WithRSA
}

func names(c *x509.Certificate) string {
	all := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return "no name at all"
	}
	return strings.Join(all[:min(len(all), 5)], ", ")
}

// refusedUs explains a TLS alert. crypto/tls tells alerts apart by text only.
func refusedUs(alert string) string {
	alert = strings.TrimPrefix(alert, "tls: ")
	ours := map[string]string{
		"certificate required":          "set certificate and key of this link",
		"unknown certificate authority": "have our certificate signed by the CA that the server trusts",
		"bad certificate":               "have our certificate signed by the CA that the server trusts, and see the server's log",
		"unknown certificate":           "have our certificate signed by the CA that the server trusts, and see the server's log",
		"unsupported certificate":       "have our certificate issued for clients (clientAuth), and see the server's log",
		"access denied":                 "let our certificate in at the server",
		"expired certificate":           "renew our certificate, or set the server's clock",
		"revoked certificate":           "have a new certificate issued",
	}
	if cure := ours[alert]; cure != "" {
		return fmt.Sprintf("the server refused our certificate (%s): %s", alert, cure)
	}
	cure := "see the server's log"
	switch alert {
	case "protocol version not supported":
		cure = "it speaks TLS 1.1 or older; have TLS 1.2 or 1.3 enabled there"
	case "no application protocol":
		cure = "correct alpn to the protocol that the cloud documents, or remove it"
	case "unrecognized name":
		cure = "the server does not know that name; correct it in servers, or set server_name"
	case "handshake failure", "insufficient security level":
		cure = "it shares no cipher suite with us; have ECDHE with AES-GCM or ChaCha20 enabled there, and see its log"
	}
	return fmt.Sprintf("the server ended TLS (%s): %s", alert, cure)
}
