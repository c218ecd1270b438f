package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/headgate-io/headgate/gateway/admin"
	"github.com/headgate-io/headgate/gateway/config"
	"github.com/headgate-io/headgate/storequeue"
)

// OpenStopped opens the queue of a gateway that does not run. The process goes
// on as the user whom the folder belongs to, if it is root's: files that root
// leaves there would keep the gateway from starting.
func OpenStopped(cfg *config.Config, log *slog.Logger) (q admin.Queue, stop func() error, err error) {
	data := cfg.Gateway.Data
	id, err := ownIdentity(cfg)
	if err == nil && id == nil {
		err = fmt.Errorf("no gateway has lived in %s yet: name the configuration it runs with (--config), or start it first", data)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrSetup, err)
	}
	by := admin.Caller(context.Background())
	if err := becomeOwner(filepath.Join(data, "queue")); err != nil {
		return nil, nil, err
	}
	g := &Gateway{cfg: cfg, log: log, started: time.Now(), inForce: cfg}
	for _, step := range []func() error{g.openDisk, g.openAccess, g.makeLinks} {
		if err := step(); err != nil {
			g.Close()
			return nil, nil, err
		}
	}
	return &backlog{g, "folder", by}, g.Close, nil
}

// becomeOwner gives root's rights up for good.
func becomeOwner(dir string) error {
	var fi syscall.Stat_t
	if os.Geteuid() != 0 || syscall.Stat(dir, &fi) != nil || fi.Uid == 0 {
		return nil
	}
	err := syscall.Setgroups(nil)
	if err == nil {
		err = syscall.Setgid(int(fi.Gid))
	}
	if err == nil {
		err = syscall.Setuid(int(fi.Uid))
	}
	if err != nil {
		return fmt.Errorf("work on %s as its owner, uid %d: %w; run this as that user", dir, fi.Uid, err)
	}
	return nil
}

// bucketAudit has what was done while no gateway ran that could log it.
const bucketAudit = "audit"

// audit writes down who did what with the queue: in the log of the gateway, or
// in the queue for the log of its next start.
func (b *backlog) audit(ctx context.Context, event string, fields ...any) error {
	by := b.by
	if by == "" {
		by = admin.Caller(ctx)
		b.g.log.Info("the queue was changed by hand", append([]any{"event", event, "by", by}, fields...)...)
		return nil
	}
	entry := map[string]any{"event": event, "by": by}
	for i := 0; i+1 < len(fields); i += 2 {
		entry[fields[i].(string)] = fields[i+1]
	}
	value, err := json.Marshal(entry)
	if err != nil {
		return err
	}
	return b.g.queue.SetState(storequeue.Change{Bucket: bucketAudit, Key: time.Now().UTC().Format(time.RFC3339Nano), Value: value})
}

// tellAudit logs what was done while no gateway ran.
func (g *Gateway) tellAudit() error {
	var done []storequeue.Change
	err := g.queue.State(bucketAudit, func(at string, value []byte) error {
		var entry map[string]any
		if err := json.Unmarshal(value, &entry); err != nil {
			return err
		}
		fields := []any{"event", entry["event"], "by", entry["by"], "at", at}
		for _, k := range slices.Sorted(maps.Keys(entry)) {
			if k != "event" && k != "by" {
				fields = append(fields, k, entry[k])
			}
		}
		g.log.Info("the queue was changed by hand while the gateway was stopped", fields...)
		done = append(done, storequeue.Change{Bucket: bucketAudit, Key: at})
		return nil
	})
	if err != nil || len(done) == 0 {
		return err
	}
	return g.queue.SetState(done...)
}
