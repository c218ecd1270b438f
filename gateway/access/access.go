package access

import (
	"errors"
	"fmt"
	"time"
)

// An Identity is who a connection, a device or a link proved to be.
type Identity struct {
	Name  string   // "press-1", "link:cloud", "device:boiler"
	Roles []string // shared: read only

	proof proof
}

// IsUser reports whether it is somebody with a password, or was.
func (id Identity) IsUser() bool { return id.proof == byPassword }

// proof is how an Identity came to its name; it decides where Gate.Current
// looks for its roles.
type proof uint8

const (
	given proof = iota // by the configuration: links, devices, anonymous_as
	byPassword
	byCertificate
)

// Action is what rules speak about.
type Action uint8

// The two actions. A will counts as Publish, $share as Subscribe to its filter.
const (
	Publish Action = iota
	Subscribe
)

// String is the word the configuration uses.
func (a Action) String() string {
	switch a {
	case Publish:
		return "publish"
	case Subscribe:
		return "subscribe"
	}
	return fmt.Sprintf("action(%d)", uint8(a))
}

// Errors of Authenticate. Callers tell the peer nothing but "not authorized".
var (
	ErrNoCredentials  = errors.New("neither a certificate nor a user and password")
	ErrBadCredentials = errors.New("unknown user or wrong password")
	ErrCertificate    = errors.New("the certificate names nobody who may log in")
	ErrBusy           = errors.New("too many password checks at once")
	ErrLocked         = errors.New("locked after too many wrong passwords")
)

// A LoginError is a failed login with a password.
type LoginError struct {
	User string // empty: what was given cannot be a user's name, and may be a password

	err error
}

func (e *LoginError) Error() string {
	if e.User == "" {
		return fmt.Sprintf("%v: user (not a user name)", e.err)
	}
	return fmt.Sprintf("%v: user %s", e.err, e.User)
}
func (e *LoginError) Unwrap() error { return e.err }

// A LockoutError is the failed login that was one too many.
type LockoutError struct {
	User string // "(not a user name)" for what cannot be one
	For  time.Duration

	// Address says that not the user alone is locked out there, but whoever
	// comes from that address with a password.
	Address bool

	err error
}

func (e *LockoutError) Error() string { return fmt.Sprintf("%v, now locked for %v", e.err, e.For) }
func (e *LockoutError) Unwrap() error { return e.err }

// maxName is the longest name of a user, a role or a certificate, in bytes.
const maxName = 128

// CheckName says whether name can be a user's, a role's or a certificate's:
// 1 to 128 of A-Z a-z 0-9 '.' '_' '-', the first a letter or a digit, and not
// "gateway", which is the gateway's own.
func CheckName(name string) error {
	if name == "gateway" {
		return errors.New(`the name "gateway" is the gateway's own: choose another`)
	}
	if !plainName(name) {
		if len(name) > maxName {
			name = name[:maxName] + "…"
		}
		return fmt.Errorf("the name %q is not allowed: use 1 to %d letters, digits, '.', '_' or '-', the first a letter or a digit", name, maxName)
	}
	return nil
}

func plainName(name string) bool {
	if name == "" || len(name) > maxName {
		return false
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == '-'):
		default:
			return false
		}
	}
	return true
}
