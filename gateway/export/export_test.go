package export

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/headgate-io/headgate/storequeue"
)

// file is an export of n messages.
func file(t testing.TB, n int, l Lock) []byte {
	t.Helper()
	var out bytes.Buffer
	locked, err := l.Wrap(&out)
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWriter(locked, Header{Gateway: "gw", Epoch: 7, Readers: []string{"link/cloud"}, Created: time.Unix(1, 0)})
	for i := range n {
		if err == nil {
			err = w.Add(storequeue.AppendMessage(nil, &storequeue.Message{Topic: "t", Payload: fmt.Append(nil, i), Origin: fmt.Sprint("gw/7/", i+1)}))
		}
	}
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = locked.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// read counts the messages of a file; its error is nil if it is whole.
func read(b []byte, k Key) (n int, err error) {
	plain, err := k.Unwrap(bytes.NewReader(b))
	if err != nil {
		return 0, err
	}
	r, err := NewReader(plain)
	for err == nil {
		var m storequeue.Message
		if m, _, err = r.Next(); err == nil {
			if string(m.Payload) != fmt.Sprint(n) || m.Origin != fmt.Sprint("gw/7/", n+1) {
				return n, fmt.Errorf("message %d is %+v", n, m)
			}
			n++
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func TestWhole(t *testing.T) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		lock Lock
		key  Key
	}{
		"plain":      {},
		"recipient":  {Lock{Recipient: key.Recipient().String()}, Key{Identities: key.String()}},
		"passphrase": {Lock{Passphrase: "correct horse"}, Key{Passphrase: "correct horse"}},
	} {
		for _, n := range []int{0, 1, 1000} {
			if got, err := read(file(t, n, tc.lock), tc.key); got != n || err != nil {
				t.Errorf("%s: %d messages of %d, %v", name, got, n, err)
			}
		}
		b := file(t, 3, tc.lock)
		if tc.lock != (Lock{}) {
			if _, err := read(b, Key{}); err == nil {
				t.Errorf("%s: read without the key", name)
			}
			if _, err := read(b, Key{Passphrase: "wrong"}); err == nil {
				t.Errorf("%s: read with a wrong passphrase", name)
			}
			if _, err := read(file(t, 3, Lock{}), tc.key); err == nil {
				t.Errorf("%s: one that nobody locked is taken for one that the key's owner did", name)
			}
		}
		if name == "passphrase" {
			continue // each try takes a second, on purpose
		}
		damage(t, name, b, tc.key)
	}
}

// damage flips each bit, or one of each byte of an encrypted file, cuts at each length and adds a byte: the file is refused.
func damage(t *testing.T, name string, b []byte, k Key) {
	t.Helper()
	for at := range b {
		for bit := range 8 {
			if k != (Key{}) && bit != at%8 { // decrypting takes its time
				continue
			}
			b[at] ^= 1 << bit
			if _, err := read(b, k); err == nil {
				t.Errorf("%s: bit %d of byte %d flipped: not noticed", name, bit, at)
			}
			b[at] ^= 1 << bit
		}
		if _, err := read(b[:at], k); err == nil {
			t.Errorf("%s: cut to %d bytes: not noticed", name, at)
		}
	}
	if _, err := read(append(b[:len(b):len(b)], 0), k); err == nil {
		t.Errorf("%s: one byte more: not noticed", name)
	}
}

func TestCheckID(t *testing.T) {
	for id, ok := range map[string]bool{
		"gw/7/1": true, "press-shop-3/281474976710655/18446744073709551615": true,
		"": false, "gw": false, "gw/7": false, "/7/1": false, "gw/x/1": false, "gw/7/1/2": false, "g+/7/1": false, "gw/7/-1": false,
	} {
		if (CheckID(id) == nil) != ok {
			t.Errorf("%q: %v", id, CheckID(id))
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(file(f, 3, Lock{}))
	f.Add([]byte(magic))
	f.Fuzz(func(_ *testing.T, b []byte) {
		r, err := NewReader(bytes.NewReader(b))
		for err == nil {
			_, _, err = r.Next()
		}
	})
}
