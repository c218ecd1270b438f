package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/headgate-io/headgate/gateway/config"
)

// identity is who this data folder belongs to. It is written once, after the
// queue was made: from then on a missing queue is an error and not a fresh
// start.
type identity struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
}

const identityFile = "gateway.json"

// readIdentity returns nil where no gateway has lived yet.
func readIdentity(data string) (*identity, error) {
	b, err := os.ReadFile(filepath.Join(data, identityFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	var id identity
	if err := json.Unmarshal(b, &id); err != nil || id.ID == "" {
		return nil, fmt.Errorf("read identity %s: it is damaged; write {\"id\":\"THE-GATEWAY'S-ID\"} into it", filepath.Join(data, identityFile))
	}
	return &id, nil
}

// ownIdentity is that of the data folder, which no other gateway may have used.
func ownIdentity(cfg *config.Config) (*identity, error) {
	id, err := readIdentity(cfg.Gateway.Data)
	if err == nil && id != nil && id.ID != cfg.Gateway.ID {
		err = fmt.Errorf("%s belongs to gateway %q, the configuration says %q; set gateway.id back, or give this gateway a data folder of its own",
			cfg.Gateway.Data, id.ID, cfg.Gateway.ID)
	}
	return id, err
}

func writeIdentity(data string, id identity) error {
	b, err := json.Marshal(id)
	if err != nil {
		return err
	}
	if err := writeWhole(filepath.Join(data, identityFile), append(b, '\n')); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	return nil
}

// writeWhole makes a file that only its owner may read. It is durable when it
// returns: path is whole or as it was before.
func writeWhole(path string, content []byte) error {
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err = giveToFolderOwner(f); err == nil {
		_, err = f.Write(content)
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	return err
}

// giveToFolderOwner lets root write without shutting the gateway's own account
// out.
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

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
