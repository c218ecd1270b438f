package export

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
)

// A Lock says who can read a file: nobody but who has the key of Recipient, or
// knows Passphrase. The zero one locks nothing.
type Lock struct{ Recipient, Passphrase string }

type noLock struct{ io.Writer }

func (noLock) Close() error { return nil }

// Wrap encrypts what is written, as age does, until Close.
func (l Lock) Wrap(w io.Writer) (io.WriteCloser, error) {
	switch {
	case l.Recipient != "":
		to, err := age.ParseRecipients(strings.NewReader(l.Recipient))
		if err != nil {
			return nil, fmt.Errorf("the recipient is no age public key (age1…): %w", err)
		}
		return age.Encrypt(w, to...)
	case l.Passphrase != "":
		to, err := age.NewScryptRecipient(l.Passphrase)
		if err != nil {
			return nil, err
		}
		return age.Encrypt(w, to)
	}
	return noLock{w}, nil
}

// A Key opens what a Lock locked. Identities is the text of an age key file.
type Key struct{ Identities, Passphrase string }

const ageMagic = "age-encryption.org/"

// Unwrap decrypts what is read. With a key, what is not encrypted is refused:
// whoever gives a key trusts what it opens, and anybody could have put another
// file in that one's place.
func (k Key) Unwrap(r io.Reader) (io.Reader, error) {
	buffered := bufio.NewReader(r)
	if start, _ := buffered.Peek(len(ageMagic)); string(start) != ageMagic {
		if k != (Key{}) {
			return nil, errors.New("the file is not encrypted, so the key says nothing about who wrote it: if you trust it, import it without one")
		}
		return buffered, nil // what it is shows when it is read
	}
	var with []age.Identity
	switch {
	case k.Identities != "":
		ids, err := age.ParseIdentities(strings.NewReader(k.Identities))
		if err != nil {
			return nil, fmt.Errorf("the key file holds no age key (AGE-SECRET-KEY-1…): %w", err)
		}
		with = ids
	case k.Passphrase != "":
		id, err := age.NewScryptIdentity(k.Passphrase)
		if err != nil {
			return nil, err
		}
		with = []age.Identity{id}
	default:
		return nil, errors.New("the file is encrypted: give --identity KEYFILE, or --passphrase-stdin if it was locked with a passphrase")
	}
	plain, err := age.Decrypt(buffered, with...)
	if err != nil {
		return nil, fmt.Errorf("the file cannot be decrypted: give the key or passphrase that it was locked with; or it is damaged: %w", err)
	}
	return plain, nil
}
