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

// A passwordHash is what is kept of a password, as its PHC string says.
type passwordHash interface {
	// String is the PHC string. It is a secret too: it goes into the users file
	// and nowhere else.
	String() string
	verify(Secret) bool
	dear() bool     // a verification costs what one of argon2id costs
	outdated() bool // to be made anew at the next login that succeeds
}

var errBadHash = errors.New("malformed password hash: set the password again")

// parseHash reads exactly what String writes. Anything else, other spellings
// of the same hash included, is refused.
func parseHash(s string) (h passwordHash, err error) {
	if len(s) > maxPHC {
		return nil, errBadHash
	}
	fields := strings.Split(s, "$")
	if len(fields) < 3 || fields[0] != "" {
		return nil, errBadHash
	}
	switch fields[1] {
	case "argon2id":
		h, err = parseArgon(fields)
	case "hmac-sha256":
		h, err = parseGenerated(fields)
	case "pbkdf2-sha512":
		h, err = parseImported(fields)
	default:
		return nil, errBadHash
	}
	if err == nil && h.String() != s {
		err = errBadHash
	}
	if err != nil {
		return nil, err
	}
	return h, nil
}

// An argonHash is one argon2id hash, of a password that a person may have chosen.
type argonHash struct {
	cost
	salt, digest []byte
}

func parseArgon(fields []string) (argonHash, error) {
	var h argonHash
	if len(fields) != 6 {
		return h, errBadHash
	}
	if _, err := fmt.Sscanf(fields[3], "m=%d,t=%d,p=%d", &h.memory, &h.time, &h.threads); err != nil {
		return h, errBadHash
	}
	var err error
	if h.salt, h.digest, err = decodeHash(fields[4:]); err != nil {
		return h, err
	}
	return h, h.check()
}

// decodeHash reads salt and digest.
func decodeHash(fields []string) (salt, digest []byte, err error) {
	if salt, err = base64.RawStdEncoding.Strict().DecodeString(fields[0]); err != nil {
		return nil, nil, errBadHash
	}
	if digest, err = base64.RawStdEncoding.Strict().DecodeString(fields[1]); err != nil {
		return nil, nil, errBadHash
	}
	return salt, digest, nil
}

func (h argonHash) check() error {
	switch {
	case h.memory < minMemory, h.memory > maxMemory, h.time < 1, h.time > maxTime, h.threads < 1, h.threads > maxThreads:
		return fmt.Errorf("argon2id cost m=%d,t=%d,p=%d is outside m=%d..%d, t=1..%d, p=1..%d: set the password again",
			h.memory, h.time, h.threads, minMemory, maxMemory, maxTime, maxThreads)
	case len(h.salt) < minSalt, len(h.salt) > maxSalt, len(h.digest) < minDigest, len(h.digest) > maxDigest:
		return errBadHash
	}
	return nil
}

func (h argonHash) String() string {
	b := base64.RawStdEncoding
	return fmt.Sprintf(phcFormat, h.memory, h.time, h.threads, b.EncodeToString(h.salt), b.EncodeToString(h.digest))
}

// newHash hashes with a fresh salt at wantedCost.
func newHash(password Secret) argonHash {
	h := argonHash{cost: wantedCost, salt: make([]byte, saltSize)}
	_, _ = rand.Read(h.salt) // never fails, crypto/rand
	h.digest = h.derive(password, digestSize)
	return h
}

// noHash is a hash of wantedCost that no password has. Checking a password
// against it takes as long as against a real one.
func noHash() argonHash {
	h := argonHash{cost: wantedCost, salt: make([]byte, saltSize), digest: make([]byte, digestSize)}
	_, _ = rand.Read(h.salt)
	_, _ = rand.Read(h.digest)
	return h
}

func (h argonHash) derive(password Secret, size int) []byte {
	return argon2.IDKey(password, h.salt, h.time, h.memory, h.threads, uint32(size))
}

func (h argonHash) verify(password Secret) bool {
	return subtle.ConstantTimeCompare(h.derive(password, len(h.digest)), h.digest) == 1
}

func (argonHash) dear() bool       { return true }
func (h argonHash) outdated() bool { return h.cost != wantedCost }
