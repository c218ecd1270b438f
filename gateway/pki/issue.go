package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Kind is what a certificate is for.
type Kind uint8

// The two kinds: a client's proves an identity to the broker, a server's
// proves the broker to its clients.
const (
	ForClient Kind = iota
	ForServer
)

// The files of a local house, in its folder.
const (
	CACertificate     = "ca.crt"
	CAKey             = "ca.key"
	BrokerCertificate = "broker.crt"
	BrokerKey         = "broker.key"
)

const (
	day            = 24 * time.Hour
	caLifetime     = 3650 * day
	serverLifetime = 730 * day
	clientLifetime = 365 * day
	backdate       = time.Hour // for clocks that are behind at boot

	// A clock that shows an earlier year was never set, and would make
	// certificates that are over before they are used.
	firstYear = 2025
)

// Options are what Issue may be told; the zero value is right for a client.
type Options struct {
	Names    []string      // host names and IP addresses; servers only
	Lifetime time.Duration // 0: a year for clients, two for servers; at most two years, and never beyond the CA
}

// Init makes a local house in dir: a CA, its empty revocation list, and a
// broker certificate for localhost, 127.0.0.1, ::1 and names, which are host names and IP addresses.
// It refuses to touch a dir that has one of its files already.
func Init(dir string, names []string) error {
	if err := checkClock(); err != nil {
		return err
	}
	if _, _, err := splitNames(names); err != nil {
		return err
	}
	for _, file := range []string{CACertificate, CAKey, RevocationList, BrokerCertificate, BrokerKey} {
		if _, err := os.Lstat(filepath.Join(dir, file)); !errors.Is(err, os.ErrNotExist) {
			return existsError(filepath.Join(dir, file), err)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ca, key, err := newCA()
	if err != nil {
		return fmt.Errorf("make the local CA: %w", err)
	}
	if err := writePair(dir, "ca", ca, key); err != nil {
		return err
	}
	parsed, err := x509.ParseCertificate(ca)
	if err != nil {
		return fmt.Errorf("make the local CA: %w", err)
	}
	list, err := signCRL(&x509.RevocationList{Number: new(big.Int)}, parsed, key)
	if err != nil {
		return err
	}
	if err := writeNew(filepath.Join(dir, RevocationList), list, 0o644); err != nil {
		return err
	}
	_, _, err = Issue(dir, "broker", ForServer, Options{Names: names})
	return err
}

func newCA() (der []byte, key *ecdsa.PrivateKey, err error) {
	key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial := newSerial()
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		// Each CA has a name of its own, so that a bundle may hold the old and the new one.
		Subject:               pkix.Name{CommonName: "Headgate local CA " + hex.EncodeToString(serial.Bytes()[:4])},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err = x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return der, key, err
}

// Issue signs a new key with the CA in dir and writes NAME.crt and NAME.key
// there. It never overwrites. The name of a client is its identity.
func Issue(dir, name string, kind Kind, opts Options) (certificate, key string, err error) {
	certificate, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	if err := checkName(name); err != nil {
		return "", "", fmt.Errorf("issue a certificate for %q: %w", name, err)
	}
	for _, file := range []string{certificate, key} {
		if _, err := os.Lstat(file); !errors.Is(err, os.ErrNotExist) {
			return "", "", existsError(file, err)
		}
	}
	der, own, err := signNew(dir, name, kind, opts)
	if err != nil {
		return "", "", err
	}
	return certificate, key, writePair(dir, name, der, own)
}

// signNew has the CA in dir sign a new key, and puts that on its record.
func signNew(dir, name string, kind Kind, opts Options) (der []byte, own *ecdsa.PrivateKey, err error) {
	if err := checkClock(); err != nil {
		return nil, nil, err
	}
	template, err := leaf(name, kind, opts)
	if err != nil {
		return nil, nil, fmt.Errorf("issue a certificate for %q: %w", name, err)
	}
	ca, signer, err := readCA(dir)
	if err != nil {
		return nil, nil, err
	}
	if ca.NotAfter.Before(template.NotAfter) {
		template.NotAfter = ca.NotAfter
	}
	if own, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, err
	}
	if der, err = x509.CreateCertificate(rand.Reader, template, ca, own.Public(), signer); err != nil {
		return nil, nil, fmt.Errorf("sign the certificate for %q: %w", name, err)
	}
	if kind == ForClient {
		if err := record(dir, template, name); err != nil {
			return nil, nil, fmt.Errorf("record the certificate for %q: %w", name, err)
		}
	}
	return der, own, nil
}

func leaf(name string, kind Kind, opts Options) (*x509.Certificate, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	now := time.Now()
	c := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-backdate),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
	lifetime := opts.Lifetime
	if lifetime < 0 || lifetime > serverLifetime {
		return nil, fmt.Errorf("a lifetime of %v is not possible: use up to %d days", lifetime, serverLifetime/day)
	}
	switch kind {
	case ForClient:
		if name == "gateway" {
			return nil, errors.New(`the name "gateway" is the gateway's own: choose another`)
		}
		if len(opts.Names) > 0 {
			return nil, errors.New("a client has no host names: leave them out")
		}
		if lifetime == 0 {
			lifetime = clientLifetime
		}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		c.URIs = []*url.URL{{Scheme: "urn", Opaque: "headgate:client:" + name}}
	case ForServer:
		if lifetime == 0 {
			lifetime = serverLifetime
		}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		hosts, addresses, err := splitNames(append([]string{"localhost", "127.0.0.1", "::1"}, opts.Names...))
		if err != nil {
			return nil, err
		}
		c.DNSNames = hosts
		for _, a := range addresses {
			c.IPAddresses = append(c.IPAddresses, a.AsSlice())
		}
	default:
		return nil, errors.New("unknown kind of certificate")
	}
	c.NotAfter = now.Add(lifetime)
	return c, nil
}

// checkName allows what gateway/access takes for an identity, as far as it
// fits into a common name: 64 characters (RFC 5280, appendix A.1).
func checkName(name string) error {
	wrong := name == "" || len(name) > 64
	for i := range len(name) {
		c := name[i] | 0x20
		alphanumeric := 'a' <= c && c <= 'z' || '0' <= name[i] && name[i] <= '9'
		wrong = wrong || !alphanumeric && (i == 0 || !strings.Contains("._-", name[i:i+1]))
	}
	if wrong {
		return errors.New("use 1 to 64 letters, digits, '.', '_' or '-', the first a letter or a digit")
	}
	return nil
}

// splitNames sorts names into host names and addresses, without repeats.
func splitNames(names []string) (hosts []string, addresses []netip.Addr, err error) {
	for _, name := range names {
		if a, err := netip.ParseAddr(name); err == nil {
			if a = a.Unmap().WithZone(""); !slices.Contains(addresses, a) {
				addresses = append(addresses, a)
			}
			continue
		}
		if !isHostName(name) {
			return nil, nil, fmt.Errorf("%q is neither a host name nor an IP address: correct or remove it", name)
		}
		if !slices.Contains(hosts, name) {
			hosts = append(hosts, name)
		}
	}
	return hosts, addresses, nil
}

func isHostName(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i] | 0x20
			if (c < 'a' || c > 'z') && (label[i] < '0' || label[i] > '9') && label[i] != '-' {
				return false
			}
		}
	}
	return true
}

func checkClock() error {
	if now := time.Now(); now.Year() < firstYear {
		return fmt.Errorf("the clock says %s: set it before making certificates", now.Format(time.DateOnly))
	}
	return nil
}

// newSerial is a random number of 16 bytes, positive, that no other certificate
// has by accident (RFC 5280, 4.1.2.2).
func newSerial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, crypto/rand
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:])
}

// readCA reads the CA that Issue signs with.
func readCA(dir string) (*x509.Certificate, crypto.Signer, error) {
	pair, err := readPair(filepath.Join(dir, CACertificate), filepath.Join(dir, CAKey))
	if err != nil {
		return nil, nil, err
	}
	file := filepath.Join(dir, CACertificate)
	if !pair.Leaf.IsCA {
		return nil, nil, fmt.Errorf("%s is not a CA: put the local CA's certificate there", file)
	}
	if err := checkDates(file, pair.Leaf, time.Now()); err != nil {
		return nil, nil, err
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("%s cannot sign: put the local CA's key there", filepath.Join(dir, CAKey))
	}
	return pair.Leaf, signer, nil
}

func existsError(file string, err error) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("%s is there already and is not overwritten: move it away first, or choose another name or folder", file)
}
