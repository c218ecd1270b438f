package storequeue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"go.etcd.io/bbolt"
)

// Everything in state.db is a fact: a value with a CRC32C behind it, over the
// name of its bucket, its key and itself. bbolt has no checksum of its own.
// Whoever reads or writes state.db does it here.

var errFact = errors.New("a value is not what was written")

func factSum(bucket, k, value []byte) uint32 {
	crc := crc32.Update(0, castagnoli, append(bucket[:len(bucket):len(bucket)], 0))
	crc = crc32.Update(crc, castagnoli, append(k[:len(k):len(k)], 0))
	return crc32.Update(crc, castagnoli, value)
}

// putVersion writes the layout version twice: as a fact, and as a number that
// programs look for which know nothing of facts.
func putVersion(tx *bbolt.Tx) error {
	if err := tx.Bucket(bucketMeta).Put(keyVersion, key(stateVersion)); err != nil {
		return err
	}
	return putFact(tx, bucketMeta, keyLayout, key(stateVersion))
}

// putFact needs the bucket to be there.
func putFact(tx *bbolt.Tx, bucket, k, value []byte) error {
	data := append(make([]byte, 0, len(value)+sumSize), value...)
	return tx.Bucket(bucket).Put(k, binary.BigEndian.AppendUint32(data, factSum(bucket, k, value)))
}

// openFact returns the value in what lies at k, without a copy.
func openFact(bucket, k, data []byte) ([]byte, error) {
	n := len(data) - sumSize
	if n < 0 || binary.BigEndian.Uint32(data[n:]) != factSum(bucket, k, data[:n]) {
		return nil, fmt.Errorf("%w: bucket %s", errFact, bucket)
	}
	return data[:n:n], nil
}

// fact returns a value, without a copy, or nil if there is none, or none that
// is whole: Open has looked at them all.
func fact(tx *bbolt.Tx, bucket, k []byte) []byte {
	b := tx.Bucket(bucket)
	if b == nil {
		return nil
	}
	value, err := openFact(bucket, k, b.Get(k))
	if err != nil {
		return nil
	}
	return value
}

// eachFact calls fn with all that is in a bucket, in the order of the keys,
// without copies. fn must not change the bucket.
func eachFact(tx *bbolt.Tx, bucket []byte, fn func(k, value []byte) error) error {
	b := tx.Bucket(bucket)
	if b == nil {
		return nil
	}
	return b.ForEach(func(k, data []byte) error {
		if string(k) == string(keyVersion) && string(bucket) == string(bucketMeta) {
			return nil
		}
		value, err := openFact(bucket, k, data)
		if err != nil {
			return err
		}
		return fn(k, value)
	})
}

// addSums makes state.db anew out of one of layout version 1, which had values
// without checksums.
func addSums(path string, old *bbolt.DB) error {
	return old.View(func(from *bbolt.Tx) error {
		return createBolt(path, func(tx *bbolt.Tx) error {
			return from.ForEach(func(name []byte, b *bbolt.Bucket) error {
				if _, err := tx.CreateBucket(name); err != nil {
					return err
				}
				return b.ForEach(func(k, v []byte) error {
					if string(name) == string(bucketMeta) && string(k) == string(keyVersion) {
						return putVersion(tx)
					}
					return putFact(tx, name, k, v)
				})
			})
		})
	})
}

func key(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func number(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}
