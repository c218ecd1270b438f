package storequeue

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
)

// A vault is how what is told of readers and by callers lies in state.db: as it
// is, or encrypted. Encrypted, a key is the HMAC-SHA256 of the bucket's name
// and the key, since keys are topics and names of clients, and a value holds
// both, with the place as associated data.
type vault struct {
	epoch uint64
	aead  cipher.AEAD // nil: as it is
	names []byte
}

const vaultKey = 16 // bytes of a key that is hidden

func newVault(epoch uint64, r *ring) (vault, error) {
	v := vault{epoch: epoch}
	if r == nil || r.state == 0 {
		return v, nil
	}
	var err error
	data := r.keys[r.state]
	if v.aead, err = data.aead(epoch, "headgate queue state"); err != nil {
		return v, err
	}
	v.names, err = hkdf.Key(sha256.New, data, key(epoch), "headgate queue state names", keySize)
	return v, err
}

// key is where in a bucket something lies.
func (v *vault) key(bucket []byte, name string) []byte {
	if v.aead == nil {
		return []byte(name)
	}
	h := hmac.New(sha256.New, v.names)
	h.Write(appendString(nil, bucket))
	h.Write([]byte(name))
	return h.Sum(nil)[:vaultKey]
}

// place is the associated data of what lies at k.
func (v *vault) place(bucket, k []byte) []byte {
	return append(appendString(key(v.epoch), bucket), k...)
}

func (v *vault) put(tx *bbolt.Tx, bucket []byte, name string, value []byte) error {
	if v.aead == nil {
		return putFact(tx, bucket, []byte(name), value)
	}
	if name == "" { // as bbolt does
		return errors.New("a key is needed")
	}
	return v.putAt(tx, bucket, v.key(bucket, name), name, value)
}

// putAt is put under a key that need not be hidden.
func (v *vault) putAt(tx *bbolt.Tx, bucket, k []byte, name string, value []byte) error {
	if v.aead == nil {
		return putFact(tx, bucket, k, value)
	}
	plain := append(appendString(make([]byte, 0, binary.MaxVarintLen64+len(name)+len(value)), name), value...)
	return putFact(tx, bucket, k, v.aead.Seal(nil, nil, plain, v.place(bucket, k)))
}

func (v *vault) delete(tx *bbolt.Tx, bucket []byte, name string) error {
	return tx.Bucket(bucket).Delete(v.key(bucket, name))
}

// get returns a copy of a value, or nil.
func (v *vault) get(tx *bbolt.Tx, bucket []byte, name string) ([]byte, error) {
	k := v.key(bucket, name)
	data := fact(tx, bucket, k)
	if data == nil {
		return nil, nil
	}
	_, value, err := v.open(bucket, k, data)
	return value, err
}

// open returns what the fact at k says; the value is a copy.
func (v *vault) open(bucket, k, data []byte) (name string, value []byte, err error) {
	if v.aead == nil {
		return string(k), append([]byte{}, data...), nil
	}
	plain, err := v.aead.Open(nil, nil, data, v.place(bucket, k))
	if err != nil {
		return "", nil, fmt.Errorf("%w: bucket %s", errFact, bucket)
	}
	c := cursor{b: plain}
	name = c.string()
	if c.err != nil {
		return "", nil, c.err
	}
	return name, plain[c.at:], nil
}

// each calls fn for all that lies in a bucket, in no order that means anything.
func (v *vault) each(tx *bbolt.Tx, bucket []byte, fn func(name string, value []byte) error) error {
	return eachFact(tx, bucket, func(k, data []byte) error {
		name, value, err := v.open(bucket, k, data)
		if err != nil {
			return err
		}
		return fn(name, value)
	})
}
