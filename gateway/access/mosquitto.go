package access

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Imported is a user of another broker, with what that kept of the password.
type Imported struct {
	Name string
	Line int
	hash passwordHash
}

// A LineError is a line of a foreign file that cannot be taken over.
type LineError struct {
	Line int
	Err  error
}

func (e LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }
func (e LineError) Unwrap() error { return e.Err }

// ReadMosquittoUsers reads a password_file of mosquitto. Its lines
// "name:$7$iterations$salt$digest" (PBKDF2, since mosquitto 2.0) are taken; the
// others are told one by one, and refused. Not "$6$": that is one round of
// SHA-512, and such a password is as good as guessed once its file is read.
func ReadMosquittoUsers(r io.Reader) ([]Imported, []LineError) {
	var users []Imported
	var refused []LineError
	lines := bufio.NewScanner(io.LimitReader(r, maxUsersFile))
	lines.Buffer(nil, maxUserLine)
	n := 1
	for ; lines.Scan(); n++ {
		line := strings.TrimRight(lines.Text(), "\r")
		if line == "" || line[0] == '#' {
			continue
		}
		u, err := mosquittoUser(line)
		if err == nil && slices.ContainsFunc(users, func(other Imported) bool { return other.Name == u.Name }) {
			err = fmt.Errorf("user %s is there twice: remove one", u.Name)
		}
		if err != nil {
			refused = append(refused, LineError{n, err})
			continue
		}
		u.Line = n
		users = append(users, u)
	}
	if err := lines.Err(); err != nil {
		refused = append(refused, LineError{n, lineError(err)})
	}
	return users, refused
}

func mosquittoUser(line string) (Imported, error) {
	name, hash, ok := strings.Cut(line, ":")
	if !ok {
		return Imported{}, errors.New("not name:password: correct or remove it")
	}
	if err := CheckName(name); err != nil {
		return Imported{}, err
	}
	fields := strings.Split(hash, "$") // "", "7", iterations, salt, digest
	if len(fields) == 4 && fields[1] == "6" {
		return Imported{}, fmt.Errorf("user %s: a $6$ password is one round of SHA-512, which is too weak to take over: set a new one with headgate user add", name)
	}
	if len(fields) != 5 || fields[0] != "" || fields[1] != "7" {
		return Imported{}, fmt.Errorf("user %s: the password is not hashed as $7$: run mosquitto_passwd -U on the file, or add the user with headgate user add", name)
	}
	h, err := mosquittoHash(fields[2:])
	if err != nil {
		return Imported{}, fmt.Errorf("user %s: %w", name, err)
	}
	return Imported{Name: name, hash: h}, nil
}

func mosquittoHash(fields []string) (importedHash, error) {
	var h importedHash
	if _, err := fmt.Sscanf(fields[0], "%d", &h.iterations); err != nil || fmt.Sprint(h.iterations) != fields[0] {
		return h, errBadHash
	}
	var err error
	if h.salt, err = base64.StdEncoding.Strict().DecodeString(fields[1]); err != nil {
		return h, errBadHash
	}
	if h.digest, err = base64.StdEncoding.Strict().DecodeString(fields[2]); err != nil {
		return h, errBadHash
	}
	return h, h.check()
}

// Import stores users of another broker, all in one change, and gives them
// roles. Users that are there already stay as they are; added has the others'
// names. Their passwords are hashed anew at their next login.
func (u *Users) Import(list []Imported, roles []string) (added []string, err error) {
	if err := checkRoles(roles); err != nil {
		return nil, fmt.Errorf("import users: %w", err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	err = u.change(syscall.LOCK_EX, func(users map[string]userRecord) error {
		fresh := make(map[string]userRecord)
		for _, i := range list {
			if _, there := users[i.Name]; there {
				continue
			}
			fresh[i.Name] = userRecord{User: User{Name: i.Name, Roles: slices.Clone(roles), Created: now}, hash: i.hash}
		}
		maps.Copy(users, fresh)
		added = slices.Sorted(maps.Keys(fresh))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("import users: %w", err)
	}
	return added, nil
}
