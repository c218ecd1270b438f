package plugin

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"

	"golang.org/x/sys/unix"
)

var validName = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

// Find returns the path of the plugin called name in folder dir, for
// Config.Path. The name comes from the configuration's `adapter:`; anything
// but [a-z0-9-]{1,64} is refused, so it cannot leave the folder. Find opens
// the file once to say early what Open would refuse.
func Find(dir, name string) (string, error) {
	if !validName.MatchString(name) {
		return "", fmt.Errorf("find plugin %q: not a name; use only a-z, 0-9 and '-'", name)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find plugin %s: %w", name, err)
	}
	path := filepath.Join(dir, name)
	f, err := openExecutable(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("find plugin %s: no such file in %s; install the plugin or correct the device's `adapter:`", name, dir)
	}
	if err != nil {
		return "", err
	}
	return path, f.Close()
}

// openExecutable opens a file that may be started. The file is checked after
// it was opened and started by its descriptor, so that it cannot be exchanged
// in between.
func openExecutable(path string) (*os.File, error) {
	if !filepath.IsAbs(path) || !validName.MatchString(filepath.Base(path)) {
		return nil, fmt.Errorf("open plugin %q: need an absolute path to a file named with a-z, 0-9 and '-' only", path)
	}
	// Not blocking: the file may be a named pipe.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("open plugin %s: it is a symbolic link; install the file itself", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open plugin: %w", err)
	}
	if err := mayStart(f); err != nil {
		return nil, errors.Join(fmt.Errorf("open plugin %s: %w", path, err), f.Close())
	}
	return f, nil
}

func mayStart(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return errors.New("not a regular file; install the program itself")
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("others than its owner may write it (mode %04o); run chmod 0755", info.Mode().Perm())
	case info.Mode().Perm()&0o111 == 0:
		return errors.New("not executable; run chmod 0755")
	case !ok || stat.Uid != 0 && int(stat.Uid) != os.Geteuid():
		return errors.New("it belongs to another user; run chown root")
	}
	return nil
}

// checksum is what the log says of the file that was started.
func checksum(f *os.File) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<40)); err != nil {
		return "", fmt.Errorf("read plugin: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
