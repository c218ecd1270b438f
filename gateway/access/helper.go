package access

import (
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

const (
	helperIdle    = time.Minute      // after which one that is not asked anything ends
	helperPatient = 30 * time.Second // longer than the slowest hash takes on a busy machine
)

// Helpers compute argon2id in processes of lower priority: there the 19 MiB and
// the tens of milliseconds of a password check are no matter of the scheduler
// and the collector that serve those who are in. They are started when they are
// needed, as many as there are checks at once, and end when nobody logs in.
type helpers struct {
	argv []string

	mu   sync.Mutex // covers the fields below; never held while a helper works
	idle []*helper
	over bool
}

type helper struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  io.ReadCloser
	rest *time.Timer // ends it; nil: it works
}

// derive is what h.derive computes.
func (p *helpers) derive(h argonHash, password Secret, size int) ([]byte, error) {
	w, err := p.take()
	if err != nil {
		return nil, fmt.Errorf("start a process for password checks: %w", err)
	}
	digest, err := w.ask(h, password, size)
	if err != nil {
		w.cmd.Process.Kill()
		w.end()
		return nil, fmt.Errorf("ask the process for password checks: %w", err)
	}
	p.put(w)
	return digest, nil
}

func (p *helpers) take() (*helper, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return nil, os.ErrClosed
	}
	if n := len(p.idle); n > 0 {
		w := p.idle[n-1]
		p.idle = p.idle[:n-1]
		w.rest.Stop()
		return w, nil
	}
	return startHelper(p.argv)
}

// put lets w wait for the next question.
func (p *helpers) put(w *helper) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		w.end()
		return
	}
	p.idle = append(p.idle, w)
	w.rest = time.AfterFunc(helperIdle, func() { p.retire(w) })
}

// retire ends w, unless it was taken in the last moment.
func (p *helpers) retire(w *helper) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.idle {
		if other == w {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			w.end()
			return
		}
	}
}

func (p *helpers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	for _, w := range p.idle {
		w.rest.Stop()
		w.end()
	}
	p.idle = nil
}

func startHelper(argv []string) (*helper, error) {
	w := &helper{cmd: exec.Command(argv[0], argv[1:]...)}
	var err error
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if w.out, err = w.cmd.StdoutPipe(); err != nil {
		w.in.Close()
		return nil, err
	}
	w.cmd.Env = []string{}  // it needs nothing of ours
	return w, w.cmd.Start() // which closes the pipes if it fails
}

// end waits for the process, which ends with its standard input.
func (w *helper) end() {
	w.in.Close()
	w.cmd.Wait() // how it went matters no more
}

// ask is one question and its answer; see AnswerHashes for their form.
func (w *helper) ask(h argonHash, password Secret, size int) ([]byte, error) {
	late := time.AfterFunc(helperPatient, func() { w.cmd.Process.Kill() })
	defer late.Stop()
	q := question{Time: h.time, Memory: h.memory, Threads: h.threads, Size: uint16(size), Salt: uint16(len(h.salt)), Password: uint16(len(password))}
	b, err := binary.Append(nil, binary.BigEndian, q)
	if err != nil {
		return nil, err
	}
	b = append(append(b, h.salt...), password...)
	defer clear(b)
	if _, err := w.in.Write(b); err != nil {
		return nil, err
	}
	digest := make([]byte, size)
	_, err = io.ReadFull(w.out, digest)
	return digest, err
}

// A question goes before the salt and the password; the answer is the hash.
type question struct {
	Time, Memory         uint32
	Threads              uint8
	Size, Salt, Password uint16
}

// AnswerHashes is the other side: it computes the argon2id hashes that it is
// asked for on r, until r ends.
func AnswerHashes(r io.Reader, w io.Writer) error {
	for {
		var q question
		if err := binary.Read(r, binary.BigEndian, &q); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a question: %w", err)
		}
		h := argonHash{cost: cost{memory: q.Memory, time: q.Time, threads: q.Threads}, salt: make([]byte, q.Salt), digest: make([]byte, q.Size)}
		if err := h.check(); err != nil || int(q.Password) > maxPasswordBytes {
			return errors.Join(errBadHash, err)
		}
		password := make(Secret, q.Password)
		if _, err := io.ReadFull(r, h.salt); err != nil {
			return fmt.Errorf("read a salt: %w", err)
		}
		if _, err := io.ReadFull(r, password); err != nil {
			return fmt.Errorf("read a password: %w", err)
		}
		digest := h.derive(password, int(q.Size))
		clear(password)
		if _, err := w.Write(digest); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
}

// HashWith lets processes that run argv, whose main function is AnswerHashes,
// check the passwords that people may have chosen. Call it before the first
// Verify, and Close at the end.
func (u *Users) HashWith(argv ...string) { u.helper = &helpers{argv: argv} }

// Close ends the processes of HashWith.
func (u *Users) Close() {
	if u.helper != nil {
		u.helper.close()
	}
}

// matches is hash.verify, in another process if it is dear and there is one.
func (u *Users) matches(hash passwordHash, password Secret) bool {
	h, dear := hash.(argonHash)
	if !dear || u.helper == nil {
		return hash.verify(password)
	}
	digest, err := u.helper.derive(h, password, len(h.digest))
	if err != nil {
		u.sorry.Do(func() {
			u.logger.Warn("passwords are checked in this process, which makes others wait: see that headgate may start itself", "error", err)
		})
		return hash.verify(password)
	}
	return subtle.ConstantTimeCompare(digest, h.digest) == 1
}
