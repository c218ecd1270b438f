package pki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Beside a pair lie those before, for moments those that take their place, and
// from `headgate cert csr` on the key that waits for its certificate.
const (
	oldSuffix  = ".old"
	newSuffix  = ".new"
	nextSuffix = ".next"
)

// PendingKey is where a key waits for the certificate that was asked for it.
func PendingKey(keyFile string) string { return keyFile + nextSuffix }

// Install puts a certificate with its chain, and its key, both PEM, in place of
// those that files name, once they have passed the check that a link makes. Those
// before are kept as .old. After a crash the old or the new pair is in force:
// who reads them finishes what was begun.
func Install(files ClientFiles, chain, key []byte) error {
	return install(files.Certificate, files.Key, chain, key, func(certFile, keyFile string) error {
		files.Certificate, files.Key = certFile, keyFile
		_, err := files.read(timeOf(files.Now))
		return err
	})
}

// Import installs a certificate for the link of files: its chain, in any order,
// from PEM files, and a key that was made elsewhere or waited here. ca, if not
// empty, is a bundle that replaces the CAs that the link trusts. A key that waited
// is used up.
func Import(files ClientFiles, certs []string, keyFile, ca string) error {
	key, err := readKey(keyFile)
	if err != nil {
		return err
	}
	secret, err := readSmall(keyFile, "key", openToOthers)
	if err != nil {
		return err
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok {
		return fmt.Errorf("key %s cannot be compared: use ECDSA, RSA or Ed25519", keyFile)
	}
	var all []*x509.Certificate
	for _, file := range certs {
		list, err := readCertificates(file)
		if err != nil {
			return err
		}
		all = append(all, list...)
	}
	chain, err := Chain(public, all)
	if err != nil {
		return fmt.Errorf("none of the certificates belongs to the key %s: put the right key, or certificate, there", keyFile)
	}
	target := files.CA
	if ca != "" {
		files.CA = ca
	}
	bundle, err := readSmall(files.CA, "certificate", 0)
	if err != nil {
		return err
	}
	if err := Install(files, chain, secret); err != nil {
		return err
	}
	if ca != "" {
		if err := errors.Join(keepOld(target), replace(target, bundle, 0o644)); err != nil {
			return err
		}
	}
	if keyFile == PendingKey(files.Key) {
		return os.Remove(keyFile)
	}
	return nil
}

func install(certFile, keyFile string, chain, key []byte, check func(certFile, keyFile string) error) error {
	newCert, newKey := certFile+newSuffix, keyFile+newSuffix
	if err := writeStaged(keyFile, key); err != nil {
		return err
	}
	err := replace(newCert, chain, 0o644)
	if err == nil {
		err = check(newCert, newKey)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("the new pair is not used: %w", err), os.Remove(newCert), os.Remove(newKey))
	}
	for _, file := range []string{keyFile, certFile} {
		if err := keepOld(file); err != nil {
			return err
		}
	}
	if err := os.Rename(newKey, keyFile); err != nil {
		return err
	}
	if err := os.Rename(newCert, certFile); err != nil && !errors.Is(err, fs.ErrNotExist) { // a reader has finished it
		return err
	}
	return errors.Join(syncFolder(filepath.Dir(keyFile)), syncFolder(filepath.Dir(certFile)))
}

// writeStaged gives the new key the owner and mode of the one before.
func writeStaged(keyFile string, key []byte) error {
	if err := replace(keyFile+newSuffix, key, 0o600); err != nil {
		return err
	}
	info, err := os.Stat(keyFile)
	if err != nil {
		return nil // there is none
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		if err := os.Chown(keyFile+newSuffix, int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	return os.Chmod(keyFile+newSuffix, info.Mode().Perm()&0o640)
}

// keepOld copies file to file.old, if it is there.
func keepOld(file string) error {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return replace(file+oldSuffix, data, info.Mode().Perm())
}

// finishInstall ends an install that a crash stopped between key and
// certificate. What it cannot do, reading the pair will tell.
func finishInstall(certFile, keyFile string) {
	if _, err := os.Stat(keyFile + newSuffix); !errors.Is(err, fs.ErrNotExist) {
		return // the key has not been replaced
	}
	if _, err := os.Stat(certFile + newSuffix); err != nil {
		return
	}
	if _, err := readPair(certFile+newSuffix, keyFile); err == nil {
		_ = os.Rename(certFile+newSuffix, certFile)
		_ = syncFolder(filepath.Dir(certFile))
	}
}

// Chain orders certificates: the one of that public key first, then each that
// signed the one before, without the root. What does not belong is left out.
func Chain(public interface{ Equal(crypto.PublicKey) bool }, certs []*x509.Certificate) ([]byte, error) {
	var out []byte
	var last *x509.Certificate
	for _, c := range certs {
		if public.Equal(c.PublicKey) {
			last = c
		}
	}
	if last == nil {
		return nil, errors.New("the answer has no certificate for our key: see the log of who issued it")
	}
	for range maxChain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: last.Raw})...)
		next := issuerOf(last, certs)
		if next == nil || bytes.Equal(next.RawIssuer, next.RawSubject) {
			break
		}
		last = next
	}
	return out, nil
}

func issuerOf(c *x509.Certificate, certs []*x509.Certificate) *x509.Certificate {
	for _, i := range certs {
		if bytes.Equal(c.RawIssuer, i.RawSubject) && !c.Equal(i) && c.CheckSignatureFrom(i) == nil {
			return i
		}
	}
	return nil
}
