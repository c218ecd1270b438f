package pki

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

const (
	crlBlock    = "X509 CRL"
	maxCRL      = 4 << 20 // bytes, about 100,000 certificates
	spkiHexSize = 2 * sha256.Size
)

// readCRLs reads the lists of a PEM file, or the one of a DER file. Each must be
// signed by one of cas and hold nothing critical that is not understood
// (RFC 5280, 5.2: such a list must not be used).
func readCRLs(file string, cas []*x509.Certificate) ([]*x509.RevocationList, error) {
	data, err := readLimited(file, "revocation list", 0, maxCRL)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; headgate cert revoke makes the one of the local CA: until then leave client_crl out, or get the list of the CA", err)
	}
	if err != nil {
		return nil, err
	}
	ders, err := crlBytes(file, data)
	if err != nil {
		return nil, err
	}
	var lists []*x509.RevocationList
	for _, der := range ders {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, fmt.Errorf("revocation list %s is damaged: %w; copy it again", file, err)
		}
		if err := checkCRL(file, list, cas); err != nil {
			return nil, err
		}
		lists = append(lists, list)
	}
	return lists, nil
}

func crlBytes(file string, data []byte) ([][]byte, error) {
	if !bytes.Contains(data, []byte("-----BEGIN")) {
		return [][]byte{data}, nil // DER, or damaged
	}
	var ders [][]byte
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != crlBlock {
			return nil, fmt.Errorf("revocation list %s holds a %s: put only revocation lists there (-----BEGIN %s-----)", file, block.Type, crlBlock)
		}
		ders, data = append(ders, block.Bytes), rest
	}
	if len(ders) == 0 || bytes.Contains(data, []byte("-----BEGIN")) {
		return nil, fmt.Errorf("revocation list %s is damaged after list %d: copy it again", file, len(ders))
	}
	return ders, nil
}

// idpOID is the issuing distribution point, which says that a list tells only
// of some certificates (RFC 5280, 5.2.5). What it tells is true all the same.
const idpOID = "2.5.29.28"

func checkCRL(file string, list *x509.RevocationList, cas []*x509.Certificate) error {
	for _, e := range list.Extensions {
		if e.Critical && e.Id.String() != idpOID {
			return fmt.Errorf("revocation list %s of %s has the critical extension %v, which is not understood: publish a full list", file, list.Issuer, e.Id)
		}
	}
	for _, entry := range list.RevokedCertificateEntries {
		for _, e := range entry.Extensions {
			if e.Critical {
				return fmt.Errorf("revocation list %s of %s has entries with the critical extension %v, which is not understood: publish one list for each CA", file, list.Issuer, e.Id)
			}
		}
	}
	err := errors.New("none of the CAs has its issuer's name")
	for _, ca := range cas {
		if !bytes.Equal(ca.RawSubject, list.RawIssuer) {
			continue
		}
		if err = list.CheckSignatureFrom(ca); err == nil {
			return nil
		}
	}
	return fmt.Errorf("revocation list %s of %s is not signed by a CA that is trusted here: %w; take the list of that CA", file, list.Issuer, err)
}

// revocations say which certificates are refused though their chain and dates
// are right. They are never changed once read. Nil refuses none.
type revocations struct {
	crlFile, denyFile string
	crls              map[string]map[string]bool // serial numbers by issuer; nil: no list is asked for
	denied            map[string]bool            // serial numbers, and digests of public keys
	due               map[string]time.Time       // when the next list of an issuer is
}

// readRevocations reads the files of which the name is not empty.
func readRevocations(crl, denylist string, cas []*x509.Certificate) (*revocations, error) {
	r := &revocations{crlFile: crl, denyFile: denylist}
	if crl != "" {
		lists, err := readCRLs(crl, cas)
		if err != nil {
			return nil, err
		}
		r.crls, r.due = make(map[string]map[string]bool), make(map[string]time.Time)
		for _, list := range lists {
			serials := r.crls[string(list.RawIssuer)]
			if serials == nil {
				serials = make(map[string]bool)
				r.crls[string(list.RawIssuer)] = serials
			}
			if !list.NextUpdate.IsZero() {
				r.due[list.Issuer.String()] = list.NextUpdate
			}
			for _, e := range list.RevokedCertificateEntries {
				serials[e.SerialNumber.Text(16)] = true
			}
		}
	}
	if denylist != "" {
		var err error
		if r.denied, err = readDenylist(denylist); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// readDenylist reads what to refuse, one a line, in hexadecimal, with or without
// colons: a serial number, of whatever CA, or the SHA-256 of a public key (of
// its SubjectPublicKeyInfo), which holds for all certificates with that key.
// '#' begins a comment.
func readDenylist(file string) (map[string]bool, error) {
	data, err := readSmall(file, "denylist", 0)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; make an empty file there if nobody is refused", err)
	}
	if err != nil {
		return nil, err
	}
	denied := make(map[string]bool)
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		key, err := denyKey(line)
		if err != nil {
			return nil, fmt.Errorf("denylist %s line %d: %w", file, n, err)
		}
		denied[key] = true
	}
	return denied, nil
}

// denyKey does not repeat the line in its error: the file may be another one,
// with secrets, that was named by mistake.
func denyKey(line string) (string, error) {
	digest := strings.ToLower(strings.ReplaceAll(line, ":", ""))
	if _, err := hex.DecodeString(digest); err == nil && len(digest) == spkiHexSize {
		return digest, nil
	}
	serial, err := parseSerial(line)
	if err != nil {
		return "", errors.New("neither a serial number nor the SHA-256 of a public key: write it in hexadecimal, comments behind '#'; or was another file named by mistake?")
	}
	return serial.Text(16), nil
}

// keyDigest is how a denylist names the key of a certificate.
func keyDigest(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// check refuses a chain, root last, with a certificate that was revoked. Where
// there are lists at all, there must be one of the CA that signed the client's
// certificate: nobody else knows whether it still holds.
func (r *revocations) check(chain []*x509.Certificate) error {
	for i, c := range chain {
		serial := c.SerialNumber.Text(16)
		if r.denied[serial] || r.denied[keyDigest(c)] {
			return fmt.Errorf("certificate %s (%s) is on the denylist %s", serial, c.Subject, r.denyFile)
		}
		serials, known := r.crls[string(c.RawIssuer)]
		if serials[serial] {
			return fmt.Errorf("certificate %s (%s) was revoked by %s: have a new one issued", serial, c.Subject, c.Issuer)
		}
		if i == 0 && r.crls != nil && !known {
			return fmt.Errorf("no revocation list of %s is in %s: add the list of that CA, and the CA itself to the trusted ones", c.Issuer, r.crlFile)
		}
	}
	return nil
}

// outdated tells of lists whose next issue is due. They are used all the same:
// what they say was revoked stays revoked, and the house runs alone.
func (r *revocations) outdated(now time.Time) error {
	var err error
	for issuer, due := range r.due {
		if now.After(due) {
			err = errors.Join(err, fmt.Errorf("revocation list %s of %s should have been renewed by %s: who was revoked since is let in; get the new list",
				r.crlFile, issuer, due.UTC().Format(dateLayout)))
		}
	}
	return err
}
