package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The local CA's list of certificates that are not taken any more, and its
// record of the client certificates it has signed.
const (
	RevocationList = "ca.crl"
	issuedRecord   = "ca.issued"
)

// Revoke puts certificates that the CA in dir signed on its list, dir/ca.crl,
// and returns the serial numbers that were not on it before. Serial numbers are
// hexadecimal. It may run several times at once: none of them is lost. After a
// crash the list is the old one or the new one.
func Revoke(dir string, serials []string) (added []string, err error) {
	numbers := make([]*big.Int, len(serials))
	for i, s := range serials {
		if numbers[i], err = parseSerial(s); err != nil {
			return nil, err
		}
	}
	if err := checkClock(); err != nil {
		return nil, err
	}
	unlock, err := lockFolder(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	ca, signer, err := readCA(dir)
	if err != nil {
		return nil, err
	}
	list := &x509.RevocationList{Number: new(big.Int)}
	file := filepath.Join(dir, RevocationList)
	lists, err := readCRLs(file, []*x509.Certificate{ca})
	switch {
	case err == nil:
		list = lists[0]
	case !errors.Is(err, fs.ErrNotExist): // houses built before there were lists have none
		return nil, err
	}
	for _, n := range numbers {
		if !listed(list, n) {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: n, RevocationTime: time.Now()})
			added = append(added, n.Text(16))
		}
	}
	if len(added) == 0 {
		return nil, nil
	}
	next, err := signCRL(list, ca, signer)
	if err != nil {
		return nil, err
	}
	return added, replace(file, next, 0o644)
}

func listed(list *x509.RevocationList, n *big.Int) bool {
	for _, e := range list.RevokedCertificateEntries {
		if e.SerialNumber.Cmp(n) == 0 {
			return true
		}
	}
	return false
}

// parseSerial reads a serial number as Inspect, openssl and browsers write it.
func parseSerial(s string) (*big.Int, error) {
	n, ok := new(big.Int).SetString(strings.ReplaceAll(s, ":", ""), 16)
	if !ok || n.Sign() <= 0 || n.BitLen() > 8*20 { // RFC 5280, 4.1.2.2
		return nil, fmt.Errorf("%q is not a serial number: write it in hexadecimal, as headgate cert show does", s)
	}
	return n, nil
}

// SerialOf is the serial number of the first certificate of a PEM file, which
// the CA in dir must have signed.
func SerialOf(dir, file string) (string, error) {
	list, err := readCertificates(file)
	if err != nil {
		return "", err
	}
	ca, err := readCertificates(filepath.Join(dir, CACertificate))
	if err != nil {
		return "", err
	}
	if err := list[0].CheckSignatureFrom(ca[0]); err != nil {
		return "", fmt.Errorf("certificate %s is not of the local CA in %s: put the line %s into the file that client_denylist of the listener names",
			file, dir, keyDigest(list[0]))
	}
	return list[0].SerialNumber.Text(16), nil
}

// SerialsOf are the serial numbers of the client certificates that the CA in
// dir has signed for name and that are not over.
func SerialsOf(dir, name string) ([]string, error) {
	issued, err := readRecord(dir)
	if err != nil {
		return nil, err
	}
	var serials []string
	for _, fields := range issued {
		if fields[2] != name {
			continue
		}
		if end, err := time.Parse(time.RFC3339, fields[1]); err != nil || end.After(time.Now()) {
			serials = append(serials, fields[0])
		}
	}
	// Those from before there was a record lie here, unless somebody moved them.
	if c, err := readCertificates(filepath.Join(dir, name+".crt")); err == nil {
		serials = append(serials, c[0].SerialNumber.Text(16))
	}
	if len(serials) == 0 {
		return nil, fmt.Errorf("no certificate for %q is on record in %s: revoke it by its serial number or by its file", name, dir)
	}
	return serials, nil
}

// OnRecord says whether the CA in dir noted that it signed a client certificate
// with that serial number, in hexadecimal. One that other tools made with its
// key, or that is from before there was a record, is not on it.
func OnRecord(dir, serial string) (bool, error) {
	n, err := parseSerial(serial)
	if err != nil {
		return false, err
	}
	issued, err := readRecord(dir)
	return slices.ContainsFunc(issued, func(fields []string) bool { return fields[0] == n.Text(16) }), err
}

// readRecord returns serial number, end and name of each certificate.
func readRecord(dir string) ([][]string, error) {
	text, err := readSmall(filepath.Join(dir, issuedRecord), "record", 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var issued [][]string
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 {
			issued = append(issued, fields)
		}
	}
	return issued, nil
}

// record notes who got a certificate, before it exists: what is signed is known.
func record(dir string, c *x509.Certificate, name string) error {
	f, err := os.OpenFile(filepath.Join(dir, issuedRecord), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s %s %s\n", c.SerialNumber.Text(16), c.NotAfter.UTC().Format(time.RFC3339), name)
	if err == nil {
		err = giveToFolderOwner(f)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// signCRL makes the next issue of list, in PEM. It holds until the CA ends: the house
// has nobody who would sign it again every week.
func signCRL(list *x509.RevocationList, ca *x509.Certificate, key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number:                    new(big.Int).Add(list.Number, big.NewInt(1)),
		ThisUpdate:                time.Now().Add(-backdate),
		NextUpdate:                ca.NotAfter,
		RevokedCertificateEntries: list.RevokedCertificateEntries,
	}, ca, key)
	if err != nil {
		return nil, fmt.Errorf("sign the revocation list: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: crlBlock, Bytes: der}), nil
}

// lockFolder lets one process at a time change the lists of a house. The system
// lets go when the process ends, however it ends.
func lockFolder(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { _ = f.Close() }, nil
}
