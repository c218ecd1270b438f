package gateway

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/headgate-io/headgate/gateway/config"
	"github.com/headgate-io/headgate/storequeue"
)

// queueCredential is the name under which systemd hands over the queue's key.
const queueCredential = "headgate-queue-key"

// newSuffix is what a new key file is called until the queue has it.
const newSuffix = ".new"

// keyPlace is where the queue's master key is.
type keyPlace struct {
	path       string
	credential bool // systemd's: not ours to write, and kept from others by it
}

func queueKeyPlace(cfg *config.Config) keyPlace {
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		path := filepath.Join(dir, queueCredential)
		if _, err := os.Stat(path); err == nil {
			return keyPlace{path, true}
		}
	}
	if cfg.Queue.KeyFile != "" {
		return keyPlace{cfg.Queue.KeyFile, false}
	}
	return keyPlace{filepath.Join(cfg.Gateway.Data, "queue.key"), false}
}

func queueDir(cfg *config.Config) string { return filepath.Join(cfg.Gateway.Data, "queue") }

// queueKey is the queue's master key, or nil where nothing is encrypted nor is
// to be. A gateway that encrypts for the first time makes it, unless dry.
func queueKey(cfg *config.Config, first, dry bool) (storequeue.Key, error) {
	place := queueKeyPlace(cfg)
	if !place.credential && !dry {
		if err := place.finish(queueDir(cfg)); err != nil {
			return nil, err
		}
	}
	k, err := place.read()
	if err == nil && dry {
		err = place.fits(queueDir(cfg), k)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if !cfg.Queue.Encryption {
		return nil, nil // or Open says what is missing
	}
	fit, err := storequeue.Try(queueDir(cfg), nil)
	switch {
	case dry && errors.Is(err, storequeue.ErrInUse):
		return nil, nil
	case err != nil:
		return nil, err
	case fit == storequeue.FitsNot:
		return nil, fmt.Errorf("the queue is encrypted, and its key %s is not there: put it back from a backup; without it nothing in the queue can be read", place.path)
	case dry, !first && fit == storequeue.NoQueue: // Open says that the queue is missing
		return nil, nil
	}
	k = storequeue.NewKey()
	if err := writeKey(place.path, k); err != nil {
		return nil, err
	}
	return k, nil
}

// fits is an error if the queue has another key.
func (p keyPlace) fits(queue string, k storequeue.Key) error {
	fit, err := storequeue.Try(queue, k)
	if errors.Is(err, storequeue.ErrInUse) {
		return nil // by a gateway that knows
	}
	if err == nil && fit == storequeue.FitsNot {
		err = fmt.Errorf("the queue is encrypted with another key than that in %s: put back the right one", p.path)
	}
	return err
}

// read returns an error that is fs.ErrNotExist if there is no key.
func (p keyPlace) read() (storequeue.Key, error) {
	fi, err := os.Stat(p.path)
	if err != nil {
		return nil, fmt.Errorf("the queue's key: %w", err)
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("the queue's key %s is not a file: give it one with 64 hexadecimal digits, or with 32 bytes in base64", p.path)
	}
	if !p.credential && fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("others may read the queue's key %s: run chmod 0600 on it; if somebody may have read it, run headgate queue rekey as well", p.path)
	}
	text, err := os.ReadFile(p.path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("the queue's key: %w: give the file to the user that the gateway runs as", err)
	}
	if err != nil {
		return nil, fmt.Errorf("the queue's key: %w", err)
	}
	defer clear(text)
	k, ok := parseKey(strings.TrimSpace(string(text)))
	if !ok {
		return nil, fmt.Errorf("%s holds no key: it wants one line, 64 hexadecimal digits or 32 bytes in base64, as openssl rand -base64 32 prints; if it was another, put it back", p.path)
	}
	return k, nil
}

func parseKey(text string) (storequeue.Key, bool) {
	decode := base64.StdEncoding.DecodeString
	if len(text) == 64 {
		decode = hex.DecodeString
	}
	b, err := decode(text)
	return b, err == nil && len(b) == 32
}

// writeKey makes a key file: whole, on disk and for nobody else, or not there.
func writeKey(path string, k storequeue.Key) error {
	if err := writeWhole(path, append(base64.StdEncoding.AppendEncode(nil, k), '\n')); err != nil {
		return fmt.Errorf("write the queue's key: %w", err)
	}
	return nil
}

// finish brings a change of the key to its end that a crash cut short after
// the queue had it.
func (p keyPlace) finish(queue string) error {
	next := keyPlace{path: p.path + newSuffix}
	k, err := next.read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	fit, err := storequeue.Try(queue, k)
	if err != nil || fit != storequeue.Fits { // the queue never had it; the next rekey writes over it
		return err
	}
	return p.replace()
}

// replace gives the new key file its name.
func (p keyPlace) replace() error {
	if err := os.Rename(p.path+newSuffix, p.path); err != nil {
		return fmt.Errorf("put the queue's new key in its place: %w", err)
	}
	return syncDir(filepath.Dir(p.path))
}

// Rekey gives the queue of a gateway that does not run a new master key, and a
// new key for all that is stored from now on. The old one is read from the file
// held, a copy of a systemd credential; if that is empty, from where the gateway
// has it. The new one is read from file; if that is empty it is made, and takes
// the place of the old one.
// installed says whether it is in its place: into a systemd credential the
// caller must put it. After a crash at any moment the gateway starts with
// whichever key is in its place, and Rekey can be called again.
func Rekey(cfg *config.Config, held, file string) (installed bool, err error) {
	place := queueKeyPlace(cfg)
	if held != "" {
		place = keyPlace{held, true}
	}
	if !place.credential {
		if err := place.finish(queueDir(cfg)); err != nil {
			return false, fmt.Errorf("%w: %w", ErrSetup, err)
		}
	}
	old, err := place.read()
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: there is no key yet: set queue.encryption: true and start the gateway", err)
	}
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrSetup, err)
	}
	next := storequeue.NewKey()
	switch {
	case file != "":
		if next, err = (keyPlace{path: file}).read(); err != nil {
			return false, fmt.Errorf("%w: %w", ErrSetup, err)
		}
	case place.credential:
		return false, fmt.Errorf("%w: the key is a systemd credential, which only you can change: make another one (umask 077; openssl rand -base64 32 > FILE), name it with --new-key-file, "+
			"and then put it where LoadCredential= takes it from", ErrSetup)
	}
	if place.credential {
		return false, rekeyed(storequeue.Rekey(queueDir(cfg), old, next, nil))
	}
	if err := writeKey(place.path+newSuffix, next); err != nil {
		return false, err
	}
	return true, rekeyed(storequeue.Rekey(queueDir(cfg), old, next, place.replace))
}

func rekeyed(err error) error {
	if errors.Is(err, storequeue.ErrKey) || errors.Is(err, storequeue.ErrDamaged) {
		return fmt.Errorf("%w: %w", ErrSetup, err)
	}
	return err
}
