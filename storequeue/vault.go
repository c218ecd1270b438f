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
// both, with the place as associated data. What may be read but not changed,
// where readers are and which segments there are, has a MAC behind the value.
type vault struct {
	epoch uint64
	aead  cipher.AEAD // nil: as it is
	names []byte
	sums  []byte // key of the MACs
}

const macSize = 16

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
	if v.names, err = hkdf.Key(sha256.New, data, key(epoch), "headgate queue state names", keySize); err != nil {
		return v, err
	}
	v.sums, err = hkdf.Key(sha256.New, data, key(epoch), "headgate queue state facts", keySize)
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

// putFact is putFact for what may be read and must not be changed: encrypted,
// the value has a MAC behind it, over its place and itself. The checksum stays:
// whoever has no key finds rot by it.
func (v *vault) putFact(tx *bbolt.Tx, bucket, k, value []byte) error {
	if v.aead != nil {
		value = append(value[:len(value):len(value)], v.mac(bucket, k, value)...)
	}
	return putFact(tx, bucket, k, value)
}

func (v *vault) mac(bucket, k, value []byte) []byte {
	h := hmac.New(sha256.New, v.sums)
	h.Write(appendString(appendString(nil, bucket), k))
	h.Write(value)
	return h.Sum(nil)[:macSize]
}

// openMAC returns the value in a fact that putFact wrote, without a copy.
func (v *vault) openMAC(bucket, k, data []byte) ([]byte, error) {
	if v.aead == nil {
		return data, nil
	}
	n := len(data) - macSize
	if n < 0 || !hmac.Equal(data[n:], v.mac(bucket, k, data[:n])) {
		return nil, fmt.Errorf("%w: bucket %s, and its checksum is right: somebody changed it", errFact, bucket)
	}
	return data[:n:n], nil
}

// fact returns what putFact put, without a copy, or nil if there is nothing, or
// nothing that is whole: Open has looked at them all.
func (v *vault) fact(tx *bbolt.Tx, bucket, k []byte) []byte {
	data := fact(tx, bucket, k)
	if data == nil {
		return nil
	}
	value, err := v.openMAC(bucket, k, data)
	if err != nil {
		return nil
	}
	return value
}

// eachFact is eachFact for what putFact put.
func (v *vault) eachFact(tx *bbolt.Tx, bucket []byte, fn func(k, value []byte) error) error {
	return eachFact(tx, bucket, func(k, data []byte) error {
		if bare(bucket, k) {
			return nil
		}
		value, err := v.openMAC(bucket, k, data)
		if err != nil {
			return err
		}
		return fn(k, value)
	})
}

// verify looks at all without which the log cannot be read as it is.
func (v *vault) verify(tx *bbolt.Tx) error {
	return tx.ForEach(func(name []byte, _ *bbolt.Bucket) error {
		if string(name) == string(bucketReaders) || string(name) == string(bucketLosses) {
			return v.each(tx, name, func(string, []byte) error { return nil })
		}
		if covered(name) || string(name) == string(bucketRing) {
			return nil
		}
		return v.eachFact(tx, name, func(_, _ []byte) error { return nil })
	})
}

// bare says which facts have no MAC: those that one must know to check it. The
// ring opens with the right epoch only.
func bare(bucket, k []byte) bool {
	return string(bucket) == string(bucketMeta) && (string(k) == string(keyEpoch) || string(k) == string(keyLayout))
}
