// Package export reads and writes files with which a backlog is carried from
// one gateway to another. A file is trusted whole or not at all: read it to its
// end once before anything is made of it.
//
//	magic    the line "headgate-queue-export 1"
//	header   a frame 'H': JSON, see Header
//	messages frames 'M': storequeue.AppendMessage, each with its origin
//	trailer  a frame 'E': JSON, the number of messages and the SHA-256 of all before it
//
// A frame is its kind, the length of its body (4 bytes, big-endian), the body,
// and a CRC32C of all of that.
package export

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/headgate-io/headgate/storequeue"
)

const (
	magic      = "headgate-queue-export 1\n"
	maxFrame   = 300 << 20 // bytes; an MQTT packet has at most 256 MiB
	kindHeader = 'H'
	kindRecord = 'M'
	kindEnd    = 'E'
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrFile marks a file that is not what was written.
var ErrFile = errors.New("the export file is damaged or cut short")

// A Header says where a file comes from. Its JSON names are stable.
type Header struct {
	ID      string    `json:"id"` // of the file, made by NewWriter
	Gateway string    `json:"gateway"`
	Epoch   uint64    `json:"epoch"`
	Readers []string  `json:"readers"`
	Filter  string    `json:"filter,omitempty"`
	From    time.Time `json:"from,omitzero"`
	To      time.Time `json:"to,omitzero"`
	Created time.Time `json:"created"`
}

type trailer struct {
	Count  uint64 `json:"count"`
	SHA256 string `json:"sha256"`
}

// A Writer writes a file, which is whole after Close.
type Writer struct {
	w     *bufio.Writer
	sum   hash.Hash
	count uint64
	buf   []byte
}

// NewWriter writes the header, with a new ID.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	x := &Writer{w: bufio.NewWriterSize(w, 64<<10), sum: sha256.New()}
	id := make([]byte, 16)
	rand.Read(id) // never fails
	h.ID = hex.EncodeToString(id)
	text, err := json.Marshal(h)
	if err == nil {
		err = x.write([]byte(magic))
	}
	if err == nil {
		err = x.frame(kindHeader, text)
	}
	return x, err
}

func (x *Writer) write(b []byte) error {
	x.sum.Write(b) // never fails
	_, err := x.w.Write(b)
	return err
}

func (x *Writer) frame(kind byte, body []byte) error {
	x.buf = binary.BigEndian.AppendUint32(append(x.buf[:0], kind), uint32(len(body)))
	x.buf = append(x.buf, body...)
	x.buf = binary.BigEndian.AppendUint32(x.buf, crc32.Checksum(x.buf, castagnoli))
	return x.write(x.buf)
}

// Add writes one message, as AppendMessage encoded it, with its origin.
func (x *Writer) Add(record []byte) error {
	x.count++
	return x.frame(kindRecord, record)
}

// Close writes the trailer. It does not close the file below.
func (x *Writer) Close() error {
	text, err := json.Marshal(trailer{x.count, hex.EncodeToString(x.sum.Sum(nil))})
	if err == nil {
		err = x.frame(kindEnd, text)
	}
	if err != nil {
		return err
	}
	return x.w.Flush()
}

// A Reader reads a file. What Next returned is what was written only when it
// has returned io.EOF.
type Reader struct {
	Header Header
	Count  uint64 // messages read so far

	r   *bufio.Reader
	sum hash.Hash
}

// NewReader reads the header.
func NewReader(r io.Reader) (*Reader, error) {
	x := &Reader{r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	got := make([]byte, len(magic))
	if _, err := io.ReadFull(x.r, got); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	if string(got) != magic {
		return nil, errors.New("this is no export of a queue, or one of a newer program: name a file that headgate queue export has written")
	}
	x.sum.Write(got)
	kind, body, err := x.frame()
	if err != nil {
		return nil, err
	}
	if kind != kindHeader || json.Unmarshal(body, &x.Header) != nil || x.Header.ID == "" {
		return nil, fmt.Errorf("%w: it has no header", ErrFile)
	}
	return x, nil
}

// frame reads the next one, with the sum over all that came before it in sum.
func (x *Reader) frame() (kind byte, body []byte, err error) {
	head := make([]byte, 5)
	if err := x.read(head); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("%w: a part of %d bytes", ErrFile, n)
	}
	body, err = x.body(int(n))
	if err != nil {
		return 0, nil, err
	}
	crc := make([]byte, 4)
	if err := x.read(crc); err != nil {
		return 0, nil, err
	}
	if crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, body) != binary.BigEndian.Uint32(crc) {
		return 0, nil, fmt.Errorf("%w: a checksum differs behind message %d", ErrFile, x.Count)
	}
	if head[0] != kindEnd {
		x.sum.Write(head)
		x.sum.Write(body)
		x.sum.Write(crc)
	}
	return head[0], body, nil
}

// body gives memory only for what is there.
func (x *Reader) body(n int) ([]byte, error) {
	const step = 1 << 20
	b := make([]byte, 0, min(n, step))
	for len(b) < n {
		at := len(b)
		b = append(b, make([]byte, min(n-at, step))...)
		if err := x.read(b[at:]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (x *Reader) read(b []byte) error {
	_, err := io.ReadFull(x.r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends behind message %d", ErrFile, x.Count)
	}
	return err
}

// Next returns the next message and how it is encoded, or io.EOF behind the
// last one of a file that is whole.
func (x *Reader) Next() (m storequeue.Message, record []byte, err error) {
	kind, body, err := x.frame()
	if err != nil {
		return m, nil, err
	}
	switch kind {
	case kindRecord:
		x.Count++
		m, err = storequeue.DecodeMessage(body)
		if err == nil {
			err = CheckID(m.Origin)
		}
		if err != nil {
			return m, nil, fmt.Errorf("message %d: %w", x.Count, err)
		}
		return m, body, nil
	case kindEnd:
		return m, nil, x.end(body)
	}
	return m, nil, fmt.Errorf("%w: a part of kind %q", ErrFile, kind)
}

func (x *Reader) end(body []byte) error {
	var t trailer
	if json.Unmarshal(body, &t) != nil || t.Count != x.Count || t.SHA256 != hex.EncodeToString(x.sum.Sum(nil)) {
		return fmt.Errorf("%w: its end does not belong to what is before it", ErrFile)
	}
	if _, err := x.r.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something stands behind its end", ErrFile)
	}
	return io.EOF
}

// CheckID says what is wrong with an hg-id: "<gateway>/<epoch>/<sequence>".
func CheckID(id string) error {
	gateway, rest, _ := strings.Cut(id, "/")
	epoch, seq, _ := strings.Cut(rest, "/")
	_, err := strconv.ParseUint(epoch, 10, 64)
	_, err2 := strconv.ParseUint(seq, 10, 64)
	if gateway == "" || len(gateway) > 64 || strings.ContainsAny(gateway, "+#\x00") || err != nil || err2 != nil {
		return fmt.Errorf("%q is no hg-id", id)
	}
	return nil
}
