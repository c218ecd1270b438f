package storequeue

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"

	"go.etcd.io/bbolt"
)

// A Key is 32 bytes that no format, log or encoder shows.
type Key []byte

const keySize = 32

// Format writes that there is a key, and not which.
func (Key) Format(w fmt.State, _ rune) { io.WriteString(w, "[redacted]") }

// MarshalText keeps it out of JSON and of logs.
func (Key) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// NewKey makes a key by chance.
func NewKey() Key {
	k := make(Key, keySize)
	rand.Read(k) // never fails
	return k
}

// id tells keys apart, and nothing about them.
func (k Key) id() ([]byte, error) {
	return hkdf.Key(sha256.New, k, nil, "headgate queue key id", 8)
}

// aead is the cipher for one purpose.
func (k Key) aead(epoch uint64, purpose string) (cipher.AEAD, error) {
	if len(k) != keySize {
		return nil, fmt.Errorf("a key has %d bytes, not %d", keySize, len(k))
	}
	sub, err := hkdf.Key(sha256.New, k, key(epoch), purpose, keySize)
	if err != nil {
		return nil, err
	}
	return newAEAD(sub)
}

// newAEAD is AES-256-GCM that puts a random nonce before what it seals.
func newAEAD(k []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// A ring holds the data keys of a queue and says what is encrypted with which.
// In state.db it lies encrypted with a key of its own, and that key once for
// each master key that opens it: one, or two while the master key changes.
type ring struct {
	own     Key
	current uint32         // data key of new segments; 0: they are not encrypted
	state   uint32         // data key of the values in state.db; 0: they are not encrypted
	master  []byte         // id of the master key that is to remain
	keys    map[uint32]Key // by id, from 1
	last    uint32         // newest id that was given
	spans   []span         // by from; the first begins at 0
}

// A span says which data key the segments from a sequence on are encrypted
// with, up to the next span.
type span struct {
	from uint64
	key  uint32
}

var (
	bucketRing = []byte("ring")
	keyRing    = []byte("ring")
)

const (
	ringVersion = 1
	ringPurpose = "headgate queue ring"
	wrapPurpose = "headgate queue master"
)

// keyOf is the id of the data key of the segment that begins at first.
func (r *ring) keyOf(first uint64) uint32 {
	if r == nil {
		return 0
	}
	n := sort.Search(len(r.spans), func(i int) bool { return r.spans[i].from > first })
	if n == 0 {
		return 0
	}
	return r.spans[n-1].key
}

// clone is for a change that a commit must make first.
func (r *ring) clone() *ring {
	c := *r
	c.keys, c.spans = map[uint32]Key{}, slices.Clone(r.spans)
	for id, k := range r.keys {
		c.keys[id] = k
	}
	return &c
}

// turnOn is the ring with a new data key for all that is written from now on,
// and with this master key as the one that is to remain.
func (r *ring) turnOn(master Key) (*ring, error) {
	if len(master) != keySize {
		return nil, fmt.Errorf("%w: it is to be encrypted, and there is no key", ErrKey)
	}
	id, err := master.id()
	if err != nil {
		return nil, err
	}
	r = r.clone()
	r.last++
	r.own, r.master, r.keys[r.last] = NewKey(), id, NewKey()
	r.current, r.state = r.last, r.last
	return r, nil
}

// newRing is one without keys; the first data key's id is that of all segments.
func newRing(first uint32) *ring {
	return &ring{keys: map[uint32]Key{}, spans: []span{{0, first}}}
}

func (r *ring) encode() []byte {
	b := []byte{ringVersion}
	for _, n := range []uint32{r.current, r.state, r.last} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	b = appendString(b, r.master)
	ids := make([]uint32, 0, len(r.keys))
	for id := range r.keys {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	b = binary.AppendUvarint(b, uint64(len(ids)))
	for _, id := range ids {
		b = append(binary.BigEndian.AppendUint32(b, id), r.keys[id]...)
	}
	b = binary.AppendUvarint(b, uint64(len(r.spans)))
	for _, s := range r.spans {
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, s.from), s.key)
	}
	return b
}

var errRing = errors.New("the ring of keys is damaged")

func decodeRing(b []byte) (*ring, error) {
	if len(b) < 1 {
		return nil, errRing
	}
	if b[0] != ringVersion {
		return nil, fmt.Errorf("ring version %d is unknown to this program: use a newer one", b[0])
	}
	c := cursor{b: b, at: 1}
	u32 := func() uint32 { return binary.BigEndian.Uint32(c.take(4)) }
	r := &ring{keys: map[uint32]Key{}}
	r.current, r.state, r.last = u32(), u32(), u32()
	r.master = append([]byte(nil), c.bytes()...)
	for n := c.count(4 + keySize); n > 0; n-- {
		id := u32()
		if k := c.takeKey(); k != nil {
			r.keys[id] = k
		}
	}
	for n := c.count(12); n > 0; n-- {
		r.spans = append(r.spans, span{binary.BigEndian.Uint64(c.take(8)), u32()})
	}
	switch {
	case c.err != nil || c.at != len(b):
		return nil, errRing
	case !slices.IsSortedFunc(r.spans, func(a, b span) int { return cmpSeq(a.from, b.from) }):
		return nil, errRing
	case r.current != 0 && r.keys[r.current] == nil || r.state != 0 && r.keys[r.state] == nil:
		return nil, errRing
	}
	return r, nil
}

func (c *cursor) takeKey() Key {
	if c.err != nil || keySize > len(c.b)-c.at {
		c.fail()
		return nil
	}
	return append(Key(nil), c.take(keySize)...)
}

func cmpSeq(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// put writes the ring, for the master keys that open it already.
func (r *ring) put(tx *bbolt.Tx, epoch uint64) error {
	if _, err := tx.CreateBucketIfNotExists(bucketRing); err != nil {
		return err
	}
	with, err := r.own.aead(epoch, ringPurpose)
	if err != nil {
		return err
	}
	return putFact(tx, bucketRing, keyRing, with.Seal(nil, nil, r.encode(), key(epoch)))
}

// admit lets a master key open the ring.
func (r *ring) admit(tx *bbolt.Tx, epoch uint64, master Key) error {
	if _, err := tx.CreateBucketIfNotExists(bucketRing); err != nil {
		return err
	}
	with, err := master.aead(epoch, wrapPurpose)
	if err != nil {
		return err
	}
	id, err := master.id()
	if err != nil {
		return err
	}
	return putFact(tx, bucketRing, id, with.Seal(nil, nil, r.own, append(key(epoch), id...)))
}

// readRing returns nil for a queue in which nothing is encrypted.
func readRing(tx *bbolt.Tx, epoch uint64, master Key) (r *ring, masters int, err error) {
	b := tx.Bucket(bucketRing)
	if b == nil {
		return nil, 0, nil
	}
	if len(master) != keySize {
		return nil, 0, fmt.Errorf("%w: it is encrypted, and there is no key", ErrKey)
	}
	with, err := master.aead(epoch, wrapPurpose)
	if err != nil {
		return nil, 0, err
	}
	id, err := master.id()
	if err != nil {
		return nil, 0, err
	}
	wrapped := fact(tx, bucketRing, id)
	if wrapped == nil {
		return nil, 0, fmt.Errorf("%w: it is encrypted with another key", ErrKey)
	}
	own, err := with.Open(nil, nil, wrapped, append(key(epoch), id...))
	if err != nil {
		return nil, 0, errRing
	}
	if with, err = Key(own).aead(epoch, ringPurpose); err != nil {
		return nil, 0, errRing
	}
	plain, err := with.Open(nil, nil, fact(tx, bucketRing, keyRing), key(epoch))
	if err != nil {
		return nil, 0, errRing
	}
	if r, err = decodeRing(plain); err != nil {
		return nil, 0, err
	}
	r.own = own
	return r, b.Inspect().KeyN - 1, nil
}
