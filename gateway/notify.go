package gateway

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// notify tells systemd how it goes (sd_notify). Without systemd it does nothing.
func notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	return nil
}

// watchdog calls feed at half the interval of systemd's watchdog, which is what
// feed is told, until ctx ends.
func watchdog(ctx context.Context, feed func(time.Duration) error) {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 { // nobody watches
		<-ctx.Done()
		return
	}
	half := time.Duration(usec) * time.Microsecond / 2
	tick := time.NewTicker(half)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			feed(half) // an error passes, or systemd restarts us
		case <-ctx.Done():
			return
		}
	}
}
