package admin

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// peerListener learns who asks. Who may not is told so, by onlyPeers.
type peerListener struct {
	*net.UnixListener
	log *slog.Logger
}

func (l peerListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		cred, err := credentials(conn)
		if err == nil {
			may := mayAsk(cred)
			if !may {
				l.log.Warn("admin socket: caller refused", "uid", cred.Uid, "gid", cred.Gid)
			}
			return &peer{conn, cred.Uid, may}, nil
		}
		conn.Close()
		l.log.Warn("admin socket: caller unknown", "error", err)
	}
}

// A peer is a connection whose other end the kernel named.
type peer struct {
	net.Conn
	uid uint32
	may bool // ask at all
}

type callerKey struct{}

// onlyPeers answers nobody but those who may ask.
func onlyPeers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, known := r.Context().Value(callerKey{}).(uint32); !known {
			w.Header().Set("Connection", "close") // its place is for others
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			answerError(w, errMayNot)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// withCaller lets handlers know who asks.
func withCaller(ctx context.Context, conn net.Conn) context.Context {
	if g, ok := conn.(*guest); ok {
		conn = g.Conn
	}
	if p, ok := conn.(*peer); ok && p.may {
		ctx = context.WithValue(ctx, callerKey{}, p.uid)
	}
	return ctx
}

// Caller is who asked, for the log: over the socket, or else this process.
func Caller(ctx context.Context) string {
	if uid, known := ctx.Value(callerKey{}).(uint32); known {
		return fmt.Sprintf("uid %d", uid)
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

// mayAsk is true for root, for the gateway's own user and for members of its
// group.
func mayAsk(c *unix.Ucred) bool {
	gid := strconv.Itoa(os.Getegid())
	if c.Uid == 0 || int(c.Uid) == os.Geteuid() || strconv.FormatUint(uint64(c.Gid), 10) == gid {
		return true
	}
	caller, err := user.LookupId(strconv.FormatUint(uint64(c.Uid), 10))
	if err != nil {
		return false
	}
	groups, err := caller.GroupIds()
	return err == nil && slices.Contains(groups, gid)
}

func credentials(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil {
		return nil, err
	}
	return cred, credErr
}
