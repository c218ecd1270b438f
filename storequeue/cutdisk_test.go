package storequeue

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	diskPage   = 4096
	diskSector = 512
)

// A disk is what a recorded process made of the folder root: what is certainly
// there, and what a power cut may lose.
type disk struct {
	root    string
	names   map[string]*inode // as the process sees them
	durable map[string]*inode // as they are after a power cut at least
	folders map[string]bool
	pending []change // of names, in order
	changes int      // so far
	fds     map[int64]*descriptor
	syncs   map[int]mark // begun and not ended, by the line of their beginning
	deaf    bool         // syncs of folders do nothing
	shared  string       // folder of files that states have together
	copies  int
}

type descriptor struct {
	path string
	file *inode
	at   int64
}

// An inode is a file's content.
type inode struct {
	pages map[int64]*page
	size  versions[int64]
	dirty map[int64]bool
	doubt bool // a sync failed

	writes, copiedAt int
	copied           string // where a state took it from, as it was at copiedAt
}

// versions are what is on disk and, in order, what was written since.
type versions[T any] struct {
	n    int // of base
	base T
	next []T
}

type page = versions[[]byte]

func (v *versions[T]) last() T {
	if len(v.next) > 0 {
		return v.next[len(v.next)-1]
	}
	return v.base
}

// reach makes what was written up to version n durable.
func (v *versions[T]) reach(n int) {
	if k := n - v.n; k > 0 {
		v.base, v.n, v.next = v.next[k-1], n, slices.Clone(v.next[k:])
	}
}

// A change is one name made, moved or removed.
type change struct {
	n        int
	from, to string // to is empty for a removal, from for a creation
	file     *inode // nil: a folder
}

// A mark is what a sync will have made durable when it comes back.
type mark struct {
	file   *inode
	pages  map[int64]int
	size   int
	folder string
	names  int
}

// newDisk begins with what is in root.
func newDisk(root string) (*disk, error) {
	d := &disk{root: root, names: map[string]*inode{}, durable: map[string]*inode{}, folders: map[string]bool{},
		fds: map[int64]*descriptor{}, syncs: map[int]mark{}}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			d.folders[path] = true
			d.durable[path] = nil
			return err
		}
		b, err := os.ReadFile(path)
		f := newInode()
		f.write(b, 0)
		f.sync(f.mark())
		d.names[path], d.durable[path] = f, f
		return err
	})
	return d, err
}

func newInode() *inode { return &inode{pages: map[int64]*page{}, dirty: map[int64]bool{}} }

func (f *inode) write(b []byte, at int64) {
	f.writes++
	if end := at + int64(len(b)); end > f.size.last() {
		f.size.next = append(f.size.next, end)
	}
	for len(b) > 0 {
		no, off := at/diskPage, at%diskPage
		n := min(int64(len(b)), diskPage-off)
		p := f.pages[no]
		if p == nil {
			p = &page{base: make([]byte, diskPage)}
			f.pages[no] = p
		}
		now := bytes.Clone(p.last())
		copy(now[off:], b[:n])
		p.next = append(p.next, now)
		f.dirty[no] = true
		b, at = b[n:], at+n
	}
}

func (f *inode) truncate(size int64) {
	f.writes++
	if old := f.size.last(); size < old {
		last := max(old, int64(len(f.pages)+1)*diskPage)
		for no := range f.pages {
			last = max(last, (no+1)*diskPage)
		}
		for at := size; at < last; at = (at/diskPage + 1) * diskPage {
			if f.pages[at/diskPage] != nil {
				f.write(make([]byte, diskPage-at%diskPage), at)
			}
		}
	}
	f.size.next = append(f.size.next, size)
}

func (f *inode) mark() mark {
	m := mark{file: f, pages: map[int64]int{}, size: f.size.n + len(f.size.next)}
	for no := range f.dirty {
		p := f.pages[no]
		m.pages[no] = p.n + len(p.next)
	}
	return m
}

func (f *inode) sync(m mark) {
	f.size.reach(m.size)
	for no, n := range m.pages {
		p := f.pages[no]
		p.reach(n)
		if len(p.next) == 0 {
			delete(f.dirty, no)
		}
	}
}

// unsure is a sync that failed: the pages are taken for written, and are on
// disk or not. The next sync leaves them out.
func (f *inode) unsure(m mark) {
	f.doubt = true
	for no := range m.pages {
		delete(f.dirty, no)
	}
}

func (d *disk) inside(path string) bool { return path == d.root || strings.HasPrefix(path, d.root+"/") }

func (d *disk) change(from, to string, file *inode) {
	d.changes++
	d.pending = append(d.pending, change{d.changes, from, to, file})
	if from != "" {
		delete(d.names, from)
	}
	if to != "" && file != nil {
		d.names[to] = file
	}
}

// begin notes what a sync is about; apply ends it.
func (d *disk) begin(c *systemCall) {
	o := d.fds[c.number(0)]
	switch {
	case o == nil:
	case o.file != nil:
		m := o.file.mark()
		d.syncs[c.began] = m
	default:
		d.syncs[c.began] = mark{folder: o.path, names: d.changes}
	}
}

func (d *disk) end(m mark) {
	if m.file != nil {
		m.file.sync(m)
		return
	}
	if d.deaf {
		return
	}
	d.pending = slices.DeleteFunc(d.pending, func(c change) bool {
		if c.n > m.names || c.dir() != m.folder {
			return false
		}
		applyChange(d.durable, c)
		return true
	})
}

// dir is the folder that holds the name.
func (c change) dir() string {
	if c.to != "" {
		return filepath.Dir(c.to)
	}
	return filepath.Dir(c.from)
}

func applyChange(names map[string]*inode, c change) {
	if c.from != "" {
		delete(names, c.from)
	}
	if c.to != "" {
		names[c.to] = c.file
	}
}

// apply does what a call did, when it is over.
func (d *disk) apply(c *systemCall) error {
	if m := d.syncs[c.began]; c.ret < 0 && m.file != nil {
		m.file.unsure(m)
	}
	if c.ret < 0 {
		delete(d.syncs, c.began)
		return nil
	}
	switch c.name {
	case "openat", "open", "creat":
		d.open(c)
	case "write", "pwrite64", "ftruncate", "lseek":
		if o := d.fds[c.number(0)]; o != nil {
			o.do(c)
		}
	case "fsync", "fdatasync":
		if m, ok := d.syncs[c.began]; ok && !c.forged {
			d.end(m)
		}
		delete(d.syncs, c.began)
	case "rename", "renameat", "renameat2":
		if from, to := c.path(0), c.path(1); d.inside(from) {
			d.change(from, to, d.names[from])
		}
	case "unlink", "unlinkat", "rmdir":
		if p := c.path(0); d.inside(p) {
			d.change(p, "", d.names[p])
		}
	case "mkdir", "mkdirat":
		if p := c.path(0); d.inside(p) {
			d.folders[p] = true
			d.change("", p, nil)
		}
	default:
		if c.unknown() && strings.Contains(fmt.Sprint(c.path(0)), d.root) || c.unknown() && len(c.parts()) > 0 && d.fds[c.number(0)] != nil {
			return fmt.Errorf("the model of the disk does not know %s(%.80s)", c.name, c.args)
		}
	}
	return nil
}

func (d *disk) open(c *systemCall) {
	p := c.path(0)
	delete(d.fds, c.ret)
	if !d.inside(p) {
		return
	}
	if d.folders[p] {
		d.fds[c.ret] = &descriptor{path: p}
		return
	}
	f := d.names[p]
	if f == nil {
		f = newInode()
		d.change("", p, f)
	}
	if strings.Contains(c.args, "O_TRUNC") {
		f.truncate(0)
	}
	d.fds[c.ret] = &descriptor{path: p, file: f}
}

func (o *descriptor) do(c *systemCall) {
	if o.file == nil {
		return
	}
	switch c.name {
	case "write":
		o.file.write(c.text(1)[:c.ret], o.at)
		o.at += c.ret
	case "pwrite64":
		o.file.write(c.text(1)[:c.ret], c.number(3))
	case "ftruncate":
		o.file.truncate(c.number(1))
	case "lseek":
		o.at = c.ret
	}
}

// crash makes, in the folder to, what a power cut may leave at this moment, or
// the least of it.
func (d *disk) crash(rnd *rand.Rand, to string, least bool) error {
	names := maps.Clone(d.durable)
	keep, poisoned := rnd.IntN(6)-1, map[string]bool{} // of four
	some := rnd.IntN(2) == 0                           // else the first ones
	if least {
		keep = -1
	}
	for _, c := range d.pending {
		if kept := rnd.IntN(4) < keep; !kept && !some {
			break
		} else if !kept || poisoned[c.from] || poisoned[c.to] {
			poisoned[c.from], poisoned[c.to] = true, true
			delete(poisoned, "")
			continue
		}
		applyChange(names, c)
	}
	all := slices.Sorted(maps.Keys(names))
	newest := ""
	for _, path := range all {
		if strings.HasPrefix(filepath.Base(path), segmentPrefix) && strings.HasSuffix(path, segmentSuffix) {
			newest = path
		}
	}
	for _, path := range all { // folders before what is in them
		var err error
		at := filepath.Join(to, strings.TrimPrefix(path, d.root))
		if _, ok := names[filepath.Dir(path)]; !ok && path != d.root {
			delete(names, path)
		} else if f := names[path]; f == nil {
			err = os.MkdirAll(at, 0o700)
		} else if f.certain() && strings.HasPrefix(filepath.Base(path), segmentPrefix) && path != newest {
			err = d.share(f, at)
		} else {
			err = f.crash(rnd, at, least)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// crash writes what may be left of one file.
func (f *inode) crash(rnd *rand.Rand, path string, least bool) error {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	keep := -1
	if !least {
		keep = rnd.IntN(6) - 1
	}
	size := f.size.pick(rnd, keep)
	if err := out.Truncate(size); err != nil {
		return err
	}
	var some []byte // of pages one behind the other, from start on
	var start int64
	for _, no := range slices.Sorted(maps.Keys(f.pages)) {
		p := f.pages[no]
		b := p.pick(rnd, keep)
		if !least && len(p.next) > 0 && rnd.IntN(4) == 0 {
			b = tear(rnd, b, p.pick(rnd, keep))
		}
		if at := no * diskPage; start+int64(len(some)) != at {
			if _, err := out.WriteAt(some, start); err != nil {
				return err
			}
			some, start = some[:0], at
		}
		some = append(some, b[:min(diskPage, max(size-no*diskPage, 0))]...)
	}
	_, err = out.WriteAt(some, start)
	return err
}

// certain reports whether a power cut leaves the file as it is.
func (f *inode) certain() bool { return !f.doubt && len(f.dirty) == 0 && len(f.size.next) == 0 }

// share is crash for a file that is certain and is not written again in its
// place: states have it together.
func (d *disk) share(f *inode, path string) error {
	if f.copied == "" || f.copiedAt != f.writes {
		d.copies++
		f.copied, f.copiedAt = filepath.Join(d.shared, fmt.Sprint(d.copies)), f.writes
		if err := f.crash(nil, f.copied, true); err != nil {
			return err
		}
	}
	return os.Link(f.copied, path)
}

// pick is the newest version keep times of four, and otherwise any, but what is
// certain half the time. With -1 all that is not certain is lost.
func (v *versions[T]) pick(rnd *rand.Rand, keep int) T {
	if len(v.next) == 0 || keep < 0 {
		return v.base
	}
	if rnd.IntN(4) < keep {
		return v.last()
	}
	if i := rnd.IntN(2*len(v.next) + 1); i > len(v.next) {
		return v.next[i-len(v.next)-1]
	}
	return v.base
}

// tear mixes the sectors of two versions of a page.
func tear(rnd *rand.Rand, a, b []byte) []byte {
	a = bytes.Clone(a)
	for at := 0; at < diskPage; at += diskSector {
		if rnd.IntN(2) == 0 {
			copy(a[at:at+diskSector], b[at:])
		}
	}
	return a
}
