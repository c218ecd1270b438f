package access

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
)

// A generatedHash is what is kept of a secret that newSecret made. Nobody can
// guess 130 random bits, however cheap a guess is, so one HMAC does, and
// thousands of devices can log in at once.
type generatedHash struct{ salt, digest []byte }

const generatedFormat = "$hmac-sha256$%s$%s"

// newSecret is a secret of 130 random bits, in letters and digits.
func newSecret() Secret { return Secret(rand.Text()) }

func newGeneratedHash(secret Secret) generatedHash {
	h := generatedHash{salt: make([]byte, saltSize)}
	_, _ = rand.Read(h.salt) // never fails, crypto/rand
	h.digest = h.derive(secret)
	return h
}

func parseGenerated(fields []string) (generatedHash, error) {
	var h generatedHash
	if len(fields) != 4 {
		return h, errBadHash
	}
	var err error
	if h.salt, h.digest, err = decodeHash(fields[2:]); err != nil {
		return h, err
	}
	if len(h.salt) != saltSize || len(h.digest) != sha256.Size {
		return h, errBadHash
	}
	return h, nil
}

func (h generatedHash) derive(secret Secret) []byte {
	m := hmac.New(sha256.New, h.salt)
	m.Write(secret)
	return m.Sum(nil)
}

func (h generatedHash) String() string {
	b := base64.RawStdEncoding
	return fmt.Sprintf(generatedFormat, b.EncodeToString(h.salt), b.EncodeToString(h.digest))
}

func (h generatedHash) verify(secret Secret) bool { return hmac.Equal(h.derive(secret), h.digest) }
func (generatedHash) dear() bool                  { return false }
func (generatedHash) outdated() bool              { return false }

// An importedHash is one of mosquitto's, "$7$": PBKDF2 with HMAC-SHA-512. It
// becomes an argonHash at the next login that succeeds.
type importedHash struct {
	iterations   int
	salt, digest []byte
}

const (
	importedFormat = "$pbkdf2-sha512$i=%d$%s$%s"
	maxIterations  = 1_000_000 // half a second
	minForeignSalt = 8         // bytes; mosquitto has 12
	maxForeignSalt = 64
)

func parseImported(fields []string) (importedHash, error) {
	var h importedHash
	if len(fields) != 5 {
		return h, errBadHash
	}
	if _, err := fmt.Sscanf(fields[2], "i=%d", &h.iterations); err != nil {
		return h, errBadHash
	}
	var err error
	if h.salt, h.digest, err = decodeHash(fields[3:]); err != nil {
		return h, err
	}
	return h, h.check()
}

func (h importedHash) check() error {
	switch {
	case h.iterations < 1, h.iterations > maxIterations:
		return fmt.Errorf("%d iterations are not within 1 to %d: set the password again", h.iterations, maxIterations)
	case len(h.salt) < minForeignSalt, len(h.salt) > maxForeignSalt, len(h.digest) != sha512.Size:
		return errBadHash
	}
	return nil
}

func (h importedHash) String() string {
	b := base64.RawStdEncoding
	return fmt.Sprintf(importedFormat, h.iterations, b.EncodeToString(h.salt), b.EncodeToString(h.digest))
}

func (h importedHash) verify(password Secret) bool {
	digest, err := pbkdf2.Key(sha512.New, string(password), h.salt, h.iterations, len(h.digest))
	return err == nil && subtle.ConstantTimeCompare(digest, h.digest) == 1
}

func (importedHash) dear() bool     { return false }
func (importedHash) outdated() bool { return true }
