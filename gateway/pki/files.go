package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const maxFile = 1 << 20 // bytes

// writePair writes NAME.key and then NAME.crt into dir.
func writePair(dir, name string, der []byte, key crypto.PrivateKey) error {
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	secret := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	if err := writeNew(filepath.Join(dir, name+".key"), secret, 0o600); err != nil {
		return err
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := writeNew(filepath.Join(dir, name+".crt"), public, 0o644); err != nil {
		_ = os.Remove(filepath.Join(dir, name+".key")) // of no use alone
		return err
	}
	return nil
}

// writeNew makes a file that is whole or not there, and never replaces one: it
// links a temporary file to its name, which fails if the name is taken (a
// rename would not).
func writeNew(path string, data []byte, mode fs.FileMode) error {
	temporary, err := writeTemporary(path, data, mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { _ = os.Remove(temporary) }()
	if err := os.Link(temporary, path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return existsError(path, nil)
		}
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncFolder(filepath.Dir(path))
}

// replace makes path hold data, or leaves it as it was.
func replace(path string, data []byte, mode fs.FileMode) error {
	temporary, err := writeTemporary(path, data, mode)
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), remove(temporary))
	}
	return syncFolder(filepath.Dir(path))
}

// writeTemporary makes a file beside path, durable, of mode 0600 until it is
// full. The caller moves or removes it.
func writeTemporary(path string, data []byte, mode fs.FileMode) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = giveToFolderOwner(f)
	}
	if err == nil {
		err = f.Chmod(mode) // the umask has no say
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, remove(f.Name()))
	}
	return f.Name(), nil
}

func remove(temporary string) error {
	if temporary == "" {
		return nil
	}
	return os.Remove(temporary)
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// giveToFolderOwner lets root make files without shutting the gateway's own
// account out of them.
func giveToFolderOwner(f *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	folder, err := os.Stat(filepath.Dir(f.Name()))
	if err != nil {
		return err
	}
	if owner, ok := folder.Sys().(*syscall.Stat_t); ok {
		return f.Chown(int(owner.Uid), int(owner.Gid))
	}
	return nil
}

// readPair reads a certificate with its chain, and its key.
func readPair(certFile, keyFile string) (*tls.Certificate, error) {
	chain, err := readCertificates(certFile)
	if err != nil {
		return nil, err
	}
	if err := checkKey(chain[0].PublicKey); err != nil {
		return nil, fmt.Errorf("certificate %s: %w", certFile, err)
	}
	key, err := readKey(keyFile)
	if err != nil {
		return nil, err
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(chain[0].PublicKey) {
		return nil, fmt.Errorf("key %s does not match certificate %s: put the key there that the certificate was made for", keyFile, certFile)
	}
	pair := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	return pair, nil
}

// readCertificates reads the certificates of a PEM file, at least one.
func readCertificates(file string) ([]*x509.Certificate, error) {
	data, err := readSmall(file, "certificate", 0)
	if err != nil {
		return nil, err
	}
	var list []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("certificate %s holds a %s: put only certificates there", file, block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %s is damaged: %w; copy it again", file, err)
		}
		list = append(list, c)
		data = rest
	}
	if len(list) == 0 {
		return nil, noPEM("certificate", file, data)
	}
	if bytes.Contains(data, []byte("-----BEGIN")) {
		return nil, fmt.Errorf("certificate %s is damaged after certificate %d: copy it again", file, len(list))
	}
	return list, nil
}

// noPEM says what a file without a PEM block is.
func noPEM(what, file string, data []byte) error {
	begin := map[string]string{"certificate": "-----BEGIN CERTIFICATE-----", "key": "-----BEGIN PRIVATE KEY-----"}[what]
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return fmt.Errorf("%s %s is empty: put the PEM text there (%s)", what, file, begin)
	case data[0] == 0x30: // a SEQUENCE
		tool := map[string]string{"certificate": "openssl x509", "key": "openssl pkey"}[what]
		return fmt.Errorf("%s %s: no PEM block, it looks like DER: convert it to PEM with %s -inform DER", what, file, tool)
	}
	return fmt.Errorf("%s %s: no PEM block: convert it to PEM (%s)", what, file, begin)
}

// openToOthers are the permissions that no key may have: the group may read it
// (root:headgate 0640), and that is all.
const openToOthers = 0o037

func readKey(file string) (crypto.Signer, error) {
	data, err := readSmall(file, "key", openToOthers)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(data)
	for block != nil && block.Type == "EC PARAMETERS" {
		block, rest = pem.Decode(rest)
	}
	if block == nil {
		return nil, noPEM("key", file, data)
	}
	var key any
	switch {
	case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
		return nil, fmt.Errorf("key %s has a passphrase, which nobody can type at boot: remove it with openssl pkey", file)
	case block.Type == "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case block.Type == "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case block.Type == "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("key %s holds a %s: were certificate and key swapped?", file, block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("key %s is damaged: %w; copy it again", file, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("key %s cannot sign: use ECDSA, RSA or Ed25519", file)
	}
	if err := checkKey(signer.Public()); err != nil {
		return nil, fmt.Errorf("key %s: %w", file, err)
	}
	return signer, nil
}

// readSmall reads a regular file of at most maxFile bytes without the
// permissions in forbidden.
func readSmall(file, what string, forbidden fs.FileMode) ([]byte, error) {
	return readLimited(file, what, forbidden, maxFile)
}

func readLimited(file, what string, forbidden fs.FileMode, limit int) ([]byte, error) {
	// Looked at before it is opened: opening a FIFO would wait.
	info, err := os.Stat(file)
	if err != nil {
		return nil, unreadable(what, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s %s is not a regular file: name the file itself", what, file)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, unreadable(what, err)
	}
	defer func() { _ = f.Close() }() // only read
	if info, err = f.Stat(); err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	if mode := info.Mode().Perm(); mode&forbidden != 0 {
		return nil, fmt.Errorf("%s %s is open to others (mode %04o): run chmod 600 %s, and make a new one if strangers could read it", what, file, mode, file)
	}
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", what, file, err)
	}
	if len(data) > limit {
		return nil, fmt.Errorf("%s %s is over %d bytes: was another file named by mistake?", what, file, limit)
	}
	return data, nil
}

func unreadable(what string, err error) error {
	cure := ""
	switch {
	case errors.Is(err, fs.ErrNotExist) && (what == "certificate" || what == "key"): // the others have their own
		cure = ": put it there, or correct the file's name"
	case errors.Is(err, fs.ErrPermission):
		cure = ": let the gateway's user read it (owner root, group headgate, mode 0640)"
	}
	return fmt.Errorf("read %s: %w%s", what, err, cure)
}

// readCAs reads a bundle of CA certificates, at least one of them not expired.
// One that is not valid yet is taken: the clock may be behind, and what it
// signed is refused by its date anyway.
func readCAs(file string, now time.Time) ([]*x509.Certificate, error) {
	list, err := readCertificates(file)
	if err != nil {
		return nil, err
	}
	var expired error
	usable := 0
	for i, c := range list {
		if !c.BasicConstraintsValid || !c.IsCA {
			return nil, fmt.Errorf("certificate %s: number %d (%s) is not a CA: put only CA certificates there", file, i+1, c.Subject)
		}
		if err := checkKey(c.PublicKey); err != nil {
			return nil, fmt.Errorf("certificate %s: number %d (%s): %w", file, i+1, c.Subject, err)
		}
		if err := checkNotExpired(file, c, now); err != nil {
			expired = err
			continue
		}
		usable++
	}
	if usable == 0 {
		return nil, expired
	}
	return list, nil
}

func poolOf(list []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range list {
		pool.AddCert(c)
	}
	return pool
}

var errWeakKey = errors.New("the key is too weak: use ECDSA on P-256 or larger, RSA of 2048 bits or more, or Ed25519")

func checkKey(public crypto.PublicKey) error {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P224() {
			return errWeakKey
		}
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return errWeakKey
		}
	case ed25519.PublicKey:
	default:
		return errWeakKey
	}
	return nil
}

const dateLayout = "2006-01-02 15:04 MST"

func checkDates(file string, c *x509.Certificate, now time.Time) error {
	if now.Before(c.NotBefore) {
		return fmt.Errorf("certificate %s is not valid before %s, and the clock says %s: correct the clock, or put another one in its place",
			file, c.NotBefore.UTC().Format(dateLayout), now.UTC().Format(dateLayout))
	}
	return checkNotExpired(file, c, now)
}

func checkNotExpired(file string, c *x509.Certificate, now time.Time) error {
	if now.After(c.NotAfter) {
		return fmt.Errorf("certificate %s expired on %s: put a new one in its place, or correct the clock",
			file, c.NotAfter.UTC().Format(dateLayout))
	}
	return nil
}
