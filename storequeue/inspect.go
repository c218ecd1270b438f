package storequeue

import "path/filepath"

// Find returns a durable reader, or nil if none has that name.
func (q *Queue) Find(name string) *Reader {
	q.segMu.RLock()
	defer q.segMu.RUnlock()
	return q.names[name]
}

// Dir is the queue's folder.
func (q *Queue) Dir() string { return q.dir }

// Corrupt counts the files that were set aside because they are damaged.
func (q *Queue) Corrupt() int {
	names, _ := aside(q.dir)
	return len(names)
}

// A SegmentCheck is what CheckSegment found.
type SegmentCheck struct {
	Name    string
	Records uint64
	Err     error  // what is wrong; nil: nothing
	Next    uint64 // where the next segment begins; 0: there is none
}

// CheckSegment reads all of the first segment that begins at from or behind it.
// It may run beside everything else; commits wait while it reads the active
// segment. ok is false if there is none.
func (q *Queue) CheckSegment(from uint64) (c SegmentCheck, ok bool) {
	var s *segment
	var last uint64
	q.segMu.RLock()
	for _, x := range q.segments {
		if x.first < from {
			continue
		}
		if s != nil {
			c.Next = x.first
			break
		}
		s, last = x, x.last
	}
	q.segMu.RUnlock()
	if s == nil {
		return c, false
	}
	c.Name = filepath.Base(s.path)
	c.Records, c.Err = s.check(last)
	if c.Err != nil && q.unlinked(s) {
		c.Err = nil
	}
	if c.Err == nil && c.Next == 0 {
		c.Err = q.checkReaders()
	}
	return c, true
}
