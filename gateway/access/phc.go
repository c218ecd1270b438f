package access

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// cost is what one argon2id hash takes: memory in KiB, passes, lanes.
type cost struct {
	memory, time uint32
	threads      uint8
}

// wantedCost is the cost of new hashes (OWASP's argon2id minimum). Hashes of
// another cost are made anew at the next login that succeeds.
var wantedCost = cost{memory: 19456, time: 2, threads: 1}

// What a stored hash may ask for. The upper bounds keep a hostile file from
// eating memory and time, the lower ones from passing a guessable hash.
const (
	minMemory, maxMemory = 1024, 65536 // KiB
	maxTime, maxThreads  = 10, 4
	minSalt, maxSalt     = 16, 32 // bytes
	minDigest, maxDigest = 32, 64 // bytes
	maxPHC               = 256    // bytes of the whole string

	saltSize, digestSize = 16, 32 // of new hashes

	phcFormat = "$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s"
)

// A passwordHash is one argon2id hash as its PHC string says.
type passwordHash struct {
	cost
	salt, digest []byte
}

var errBadHash = errors.New("malformed argon2id hash: set the password again")

// parseHash reads exactly what String writes. Anything else, other spellings
// of the same hash included, is refused.
func parseHash(s string) (passwordHash, error) {
	if len(s) > maxPHC {
		return passwordHash{}, errBadHash
	}
	var h passwordHash
	fields := strings.Split(s, "$") // the first is empty
	if len(fields) != 6 {
		return h, errBadHash
	}
	if _, err := fmt.Sscanf(fields[3], "m=%d,t=%d,p=%d", &h.memory, &h.time, &h.threads); err != nil {
		return h, errBadHash
	}
	var err error
	if h.salt, err = base64.RawStdEncoding.Strict().DecodeString(fields[4]); err != nil {
		return h, errBadHash
	}
	if h.digest, err = base64.RawStdEncoding.Strict().DecodeString(fields[5]); err != nil {
		return h, errBadHash
	}
	if h.String() != s {
		return h, errBadHash
	}
	return h, h.check()
}

func (h passwordHash) check() error {
	switch {
	case h.memory < minMemory, h.memory > maxMemory, h.time < 1, h.time > maxTime, h.threads < 1, h.threads > maxThreads:
		return fmt.Errorf("argon2id cost m=%d,t=%d,p=%d is outside m=%d..%d, t=1..%d, p=1..%d: set the password again",
			h.memory, h.time, h.threads, minMemory, maxMemory, maxTime, maxThreads)
	case len(h.salt) < minSalt, len(h.salt) > maxSalt, len(h.digest) < minDigest, len(h.digest) > maxDigest:
		return errBadHash
	}
	return nil
}

// String is the PHC string. It is a secret too: it goes into the users file
// and nowhere else.
func (h passwordHash) String() string {
	b := base64.RawStdEncoding
	return fmt.Sprintf(phcFormat, h.memory, h.time, h.threads, b.EncodeToString(h.salt), b.EncodeToString(h.digest))
}

// newHash hashes with a fresh salt at wantedCost.
func newHash(password Secret) passwordHash {
	h := passwordHash{cost: wantedCost, salt: make([]byte, saltSize)}
	_, _ = rand.Read(h.salt) // never fails, crypto/rand
	h.digest = h.derive(password, digestSize)
	return h
}

// noHash is a hash of wantedCost that no password has. Checking a password
// against it takes as long as against a real one.
func noHash() passwordHash {
	h := passwordHash{cost: wantedCost, salt: make([]byte, saltSize), digest: make([]byte, digestSize)}
	_, _ = rand.Read(h.salt)
	_, _ = rand.Read(h.digest)
	return h
}

func (h passwordHash) derive(password Secret, size int) []byte {
	return argon2.IDKey(password, h.salt, h.time, h.memory, h.threads, uint32(size))
}

func (h passwordHash) verify(password Secret) bool {
	return subtle.ConstantTimeCompare(h.derive(password, len(h.digest)), h.digest) == 1
}
