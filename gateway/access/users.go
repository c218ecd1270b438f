package access

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A User is somebody with a password.
type User struct {
	Name     string    `json:"name"`
	Roles    []string  `json:"roles"`
	Disabled bool      `json:"disabled"`
	Created  time.Time `json:"created"`
}

// Users is the file of users. Several processes may use one file: changes are
// made under a lock, and a change by another process is seen at the next login.
// Safe for concurrent use.
type Users struct {
	path   string
	logger *slog.Logger
	nobody argonHash // what passwords of unknown and disabled users are checked against
	checks *checks
	proved *reconnects
	hashed atomic.Uint64 // passwords checked with a hash
	helper *helpers      // nil: this process checks them itself
	sorry  sync.Once     // said that they do not work

	table    atomic.Pointer[userTable]
	changing sync.Mutex // one change at a time, file included; logins do not take it
	reading  sync.Mutex // one goroutine at a time reads a changed file; the others go on with the old table
}

// A userTable is the file as it was read. It is never changed.
type userTable struct {
	users map[string]userRecord
	file  fs.FileInfo // nil: there was no file
}

type userRecord struct {
	User
	hash passwordHash
}

// OpenUsers reads the file at path. A file that is not there has no users; one
// that others may read, or with a line that is not understood, is an error.
func OpenUsers(path string, logger *slog.Logger) (*Users, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	u := &Users{path: path, logger: logger, nobody: noHash(), checks: newChecks(), proved: newReconnects()}
	u.table.Store(&userTable{})
	if err := u.Reload(); err != nil {
		return nil, err
	}
	return u, nil
}

// Reload reads the file again. On an error the users stay as they were.
func (u *Users) Reload() error {
	t, err := readUsers(u.path)
	if err != nil {
		return fmt.Errorf("read users: %w", err)
	}
	u.table.Store(t)
	return nil
}

// current is the table, read again when the file changed. A file that cannot
// be read is reported once and the users stay as they were.
func (u *Users) current() *userTable {
	t := u.table.Load()
	file, err := os.Lstat(u.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) || sameFile(t.file, file) || !u.reading.TryLock() {
		return t
	}
	defer u.reading.Unlock()
	if err := u.Reload(); err != nil {
		u.logger.Error("users keep what they were: the changed file is refused", "error", err)
		u.table.Store(&userTable{users: t.users, file: file})
	}
	return u.table.Load()
}

func sameFile(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// List returns all users in the order of their names.
func (u *Users) List() []User {
	var list []User
	for _, r := range u.current().users {
		r.Roles = slices.Clone(r.Roles)
		list = append(list, r.User)
	}
	slices.SortFunc(list, func(a, b User) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// lookup finds a user. The record's roles are shared: read only.
func (u *Users) lookup(name string) (userRecord, bool) {
	r, ok := u.current().users[name]
	return r, ok
}

func (u *Users) removed(name string) bool {
	t := u.current()
	_, there := t.users[name]
	return !there && t.file != nil
}

// Add stores a new user. See CheckName and CheckPassword for what is refused.
func (u *Users) Add(name string, password Secret, roles []string) error {
	if err := CheckName(name); err != nil {
		return fmt.Errorf("add user: %w", err)
	}
	if err := checkRoles(roles); err != nil {
		return fmt.Errorf("add user %s: %w", name, err)
	}
	if err := CheckPassword(name, password); err != nil {
		return fmt.Errorf("add user %s: %w", name, err)
	}
	return u.add(name, newHash(password), roles)
}

// AddGenerated stores a new user whose secret it makes: 26 letters and digits,
// 130 random bits, which no attacker guesses and which cost next to nothing to
// check. It is kept nowhere: whoever loses it needs another.
func (u *Users) AddGenerated(name string, roles []string) (Secret, error) {
	if err := CheckName(name); err != nil {
		return nil, fmt.Errorf("add user: %w", err)
	}
	if err := checkRoles(roles); err != nil {
		return nil, fmt.Errorf("add user %s: %w", name, err)
	}
	secret := newSecret()
	if err := u.add(name, newGeneratedHash(secret), roles); err != nil {
		return nil, err
	}
	return secret, nil
}

func (u *Users) add(name string, hash passwordHash, roles []string) error {
	r := userRecord{hash: hash}
	r.User = User{Name: name, Roles: slices.Clone(roles), Created: time.Now().UTC().Truncate(time.Second)}
	err := u.change(syscall.LOCK_EX, func(users map[string]userRecord) error {
		if _, ok := users[name]; ok {
			return errors.New("there is one already: change the password with `headgate user passwd`")
		}
		users[name] = r
		return nil
	})
	if err != nil {
		return fmt.Errorf("add user %s: %w", name, err)
	}
	return nil
}

// Remove forgets a user. Sessions already open go on until Gate.Current is
// asked about them.
func (u *Users) Remove(name string) error {
	return u.edit("remove", name, func(users map[string]userRecord, _ userRecord) { delete(users, name) })
}

// SetPassword replaces a user's password.
func (u *Users) SetPassword(name string, password Secret) error {
	if err := CheckPassword(name, password); err != nil {
		return fmt.Errorf("set the password of user %s: %w", name, err)
	}
	return u.setHash(name, newHash(password))
}

// Generate replaces a user's password by a secret as AddGenerated makes it.
func (u *Users) Generate(name string) (Secret, error) {
	secret := newSecret()
	if err := u.setHash(name, newGeneratedHash(secret)); err != nil {
		return nil, err
	}
	return secret, nil
}

func (u *Users) setHash(name string, hash passwordHash) error {
	return u.edit("set the password of", name, func(users map[string]userRecord, r userRecord) {
		r.hash = hash
		users[name] = r
	})
}

// SetRoles replaces a user's roles.
func (u *Users) SetRoles(name string, roles []string) error {
	if err := checkRoles(roles); err != nil {
		return fmt.Errorf("set the roles of user %s: %w", name, err)
	}
	return u.edit("set the roles of", name, func(users map[string]userRecord, r userRecord) {
		r.Roles = slices.Clone(roles)
		users[name] = r
	})
}

// SetDisabled bars a user from logging in, or lets it in again.
func (u *Users) SetDisabled(name string, disabled bool) error {
	return u.edit("disable or enable", name, func(users map[string]userRecord, r userRecord) {
		r.Disabled = disabled
		users[name] = r
	})
}

func (u *Users) edit(verb, name string, f func(map[string]userRecord, userRecord)) error {
	err := u.change(syscall.LOCK_EX, func(users map[string]userRecord) error {
		r, ok := users[name]
		if !ok {
			return errors.New("there is none of this name: see `headgate user list`")
		}
		f(users, r)
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s user %q: %w", verb, name, err)
	}
	return nil
}

// change reads the file, lets f change the users, and writes them. It holds
// u.changing and the lock file, taken as how says, over disk I/O: without that
// two changes at once would lose one.
func (u *Users) change(how int, f func(map[string]userRecord) error) error {
	u.changing.Lock()
	defer u.changing.Unlock()
	unlock, err := lockFile(u.path+".lock", how)
	if err != nil {
		return err
	}
	defer unlock()
	t, err := readUsers(u.path)
	if err != nil {
		return err
	}
	users := maps.Clone(t.users)
	if users == nil {
		users = make(map[string]userRecord)
	}
	if err := f(users); err != nil {
		return err
	}
	file, err := writeUsers(u.path, users)
	if err != nil {
		return err
	}
	u.table.Store(&userTable{users: users, file: file})
	return nil
}

func checkRoles(roles []string) error {
	for _, role := range roles {
		if !plainName(role) {
			return fmt.Errorf("%q is not a role: use letters, digits, '.', '_' or '-'", role)
		}
	}
	return nil
}

// Verify checks a password. It answers ErrBadCredentials for every wrong pair
// and takes as long for users that do not exist; ErrBusy when too many wait.
func (u *Users) Verify(ctx context.Context, name string, password Secret) (User, error) {
	return u.verify(ctx, name, password, lockless{})
}

// A guard is asked when a turn to spend time on a hash has come, and told of a
// wrong password before the next turn begins.
type guard interface {
	suspected() bool
	admit() error
	failed()
}

type lockless struct{}

func (lockless) suspected() bool { return false }
func (lockless) admit() error    { return nil }
func (lockless) failed()         {}

func (u *Users) verify(ctx context.Context, name string, password Secret, g guard) (User, error) {
	// What was sent decides here, not who exists, so answering at once tells nothing.
	if CheckName(name) != nil || len(password) == 0 || len(password) > maxPasswordBytes {
		g.failed()
		return User{}, ErrBadCredentials
	}
	if r, ok := u.atOnce(name, password); ok {
		return r.User, nil
	}
	release, err := u.checks.begin(ctx, g.suspected)
	if err != nil {
		return User{}, err
	}
	defer release()
	if err := g.admit(); err != nil {
		return User{}, err
	}
	// While this one waited, another may have proved the same, or the user changed.
	if r, ok := u.atOnce(name, password); ok {
		return r.User, nil
	}
	r, hash, active := u.hashOf(name)
	u.hashed.Add(1)
	right := u.matches(hash, password) && active
	if !right && !hash.dear() {
		u.matches(u.nobody, password) // all wrong passwords take the same time
	}
	if !right {
		g.failed()
		return User{}, ErrBadCredentials
	}
	if hash.outdated() {
		hash = u.renew(name, password, hash)
	}
	u.proved.remember(name, password, hash)
	return r.User, nil
}

// atOnce finds the right password where that costs next to nothing: a generated
// secret, or one that was right not long ago.
func (u *Users) atOnce(name string, password Secret) (userRecord, bool) {
	r, hash, active := u.hashOf(name)
	generated, ok := hash.(generatedHash)
	right := ok && generated.verify(password) || u.proved.knows(name, password, hash)
	return r, right && active
}

// hashOf returns what to check a password against; active is false for users
// that cannot log in.
func (u *Users) hashOf(name string) (r userRecord, hash passwordHash, active bool) {
	r, ok := u.lookup(name)
	if !ok || r.Disabled {
		return r, u.nobody, false
	}
	return r, r.hash, true
}

// renew stores password under wantedCost, unless the user changed meanwhile or
// somebody else is changing the file; then the next login does it. It runs in
// the turn of the check, so that never more than two hashes are made at once.
func (u *Users) renew(name string, password Secret, old passwordHash) passwordHash {
	hash := newHash(password)
	err := u.change(syscall.LOCK_EX|syscall.LOCK_NB, func(users map[string]userRecord) error {
		r, ok := users[name]
		if !ok || r.hash.String() != old.String() {
			return errors.New("the user changed")
		}
		r.hash = hash
		users[name] = r
		return nil
	})
	if err != nil {
		u.logger.Warn("password hash stays at its old cost until the next login", "user", name, "error", err)
		return old
	}
	return hash
}
