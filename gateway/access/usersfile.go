package access

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// The users file is lines of JSON: a header, then one user per line in the
// order of names. It is replaced as a whole and never changed in place.
const (
	maxUsersFile = 16 << 20 // bytes, about 60,000 users
	maxUserLine  = 16 << 10 // bytes
)

type usersHeader struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
}

var wantedHeader = usersHeader{Format: "headgate-users", Version: 1}

type userLine struct {
	Name     string    `json:"name"`
	Password string    `json:"password"`
	Roles    []string  `json:"roles,omitempty"`
	Disabled bool      `json:"disabled,omitempty"`
	Created  time.Time `json:"created"`
}

// readUsers reads the file at path; no file is a table without users.
func readUsers(path string) (*userTable, error) {
	before, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &userTable{}, nil
	}
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file: put the users file itself there", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	file, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !os.SameFile(before, file) {
		return nil, fmt.Errorf("%s was replaced while it was opened: try again", path)
	}
	if mode := file.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s is open to others (mode %04o): run chmod 600 %s, and then set the passwords again if others could read them", path, mode, path)
	}
	if file.Size() > maxUsersFile {
		return nil, fmt.Errorf("%s is over %d bytes: remove users", path, maxUsersFile)
	}
	users, err := decodeUsers(io.LimitReader(f, maxUsersFile))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &userTable{users: users, file: file}, nil
}

func decodeUsers(r io.Reader) (map[string]userRecord, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxUserLine)
	var header usersHeader
	if !lines.Scan() || decodeLine(lines.Bytes(), &header) != nil || header != wantedHeader {
		return nil, errors.New("line 1: not a users file of version 1: restore it from a backup, or remove it and add the users again")
	}
	users := make(map[string]userRecord)
	n := 2
	for ; lines.Scan(); n++ {
		r, err := decodeUser(lines.Bytes())
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if _, ok := users[r.Name]; ok {
			return nil, fmt.Errorf("line %d: user %q is there twice: remove one", n, r.Name)
		}
		users[r.Name] = r
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", n, lineError(err))
	}
	return users, nil
}

// lineError puts what ended the reading of lines into our words.
func lineError(err error) error {
	if errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("the line is over %d bytes, and nothing from there on was read: shorten or remove it", maxUserLine)
	}
	return err
}

func decodeUser(line []byte) (userRecord, error) {
	var l userLine
	if err := decodeLine(line, &l); err != nil {
		return userRecord{}, errors.New("not a user: correct or remove the line")
	}
	if err := CheckName(l.Name); err != nil {
		return userRecord{}, err
	}
	if err := checkRoles(l.Roles); err != nil {
		return userRecord{}, err
	}
	hash, err := parseHash(l.Password)
	if err != nil {
		return userRecord{}, fmt.Errorf("user %s: %w", l.Name, err)
	}
	return userRecord{User: User{l.Name, l.Roles, l.Disabled, l.Created}, hash: hash}, nil
}

// decodeLine is strict: no unknown fields, nothing behind the value.
func decodeLine(line []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("text behind the value")
	}
	return nil
}

func encodeUsers(users map[string]userRecord) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(wantedHeader); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(users)) {
		r := users[name]
		if err := e.Encode(userLine{r.Name, r.hash.String(), r.Roles, r.Disabled, r.Created}); err != nil {
			return nil, err
		}
	}
	if b.Len() > maxUsersFile {
		return nil, fmt.Errorf("the users do not fit into %d bytes: remove some first", maxUsersFile)
	}
	return b.Bytes(), nil
}

// writeUsers replaces the file at path and returns what it is now. After a
// crash the file is the old one or the new one, whole.
func writeUsers(path string, users map[string]userRecord) (fs.FileInfo, error) {
	data, err := encodeUsers(users)
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp-*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when all went well
	file, err := fill(f, data)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return nil, err
	}
	return file, syncFolder(filepath.Dir(path))
}

func fill(f *os.File, data []byte) (fs.FileInfo, error) {
	if _, err := f.Write(data); err != nil {
		return nil, err
	}
	if err := giveToFolderOwner(f); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	return f.Stat()
}

// giveToFolderOwner lets root add users without shutting the gateway's own
// account out of its file.
func giveToFolderOwner(f *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	folder, err := os.Stat(filepath.Dir(f.Name()))
	if err != nil {
		return err
	}
	if owner, ok := folder.Sys().(*syscall.Stat_t); ok {
		return f.Chown(int(owner.Uid), int(owner.Gid))
	}
	return nil
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lockFile takes the lock at path for this process. The system lets it go when
// the process ends, however it ends.
func lockFile(path string, how int) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = giveToFolderOwner(f)
	if err == nil {
		err = syscall.Flock(int(f.Fd()), how)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}
