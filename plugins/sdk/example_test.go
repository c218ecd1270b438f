package sdk_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/headgate-io/headgate/plugins/sdk"
	"github.com/headgate-io/headgate/southbound"
)

// A scale answers the line "W\r\n" on a TCP port with its weight in kilograms,
// or with "ERR" when its load cell is broken.
type scale struct {
	address  string
	interval time.Duration
}

// newScale holds configuration only. It is strict: a typing error in the
// settings is found now and not missed for years.
func newScale(settings []byte) (southbound.Adapter, error) {
	var s struct {
		Address  string `json:"address"`
		Interval string `json:"interval"`
	}
	d := json.NewDecoder(bytes.NewReader(settings))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	interval, err := time.ParseDuration(s.Interval)
	if err != nil || interval < 100*time.Millisecond {
		return nil, fmt.Errorf("interval %q: need a duration of at least 100ms", s.Interval)
	}
	return scale{s.Address, interval}, nil
}

// Open connects. Whatever can break lives in the session.
func (s scale) Open(ctx context.Context) (southbound.Session, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil, fmt.Errorf("connect to scale: %w", err)
	}
	return &weighing{conn: conn, tick: time.NewTicker(s.interval)}, nil
}

type weighing struct {
	conn net.Conn
	tick *time.Ticker
}

func (w *weighing) Tags() []southbound.Tag {
	return []southbound.Tag{{Name: "weight", Group: "scale", Type: "float64", Unit: "kg"}}
}

// Read waits for the next tick and asks. An error ends the session: the
// gateway opens another. A broken load cell does not: it is a bad reading.
func (w *weighing) Read(ctx context.Context) (southbound.Batch, error) {
	select {
	case <-ctx.Done():
		return southbound.Batch{}, ctx.Err()
	case <-w.tick.C:
	}
	answer, err := w.ask(ctx, "W\r\n")
	if err != nil {
		return southbound.Batch{}, fmt.Errorf("ask scale: %w", err)
	}
	now := time.Now()
	r := southbound.Reading{Tag: "weight", Quality: southbound.BadSensor, Time: now}
	if kg, err := strconv.ParseFloat(answer, 64); err == nil {
		r.Value, r.Quality = kg, southbound.Good
	}
	return southbound.Batch{Group: "scale", Time: now, Readings: []southbound.Reading{r}}, nil
}

// ask gives up when ctx ends.
func (w *weighing) ask(ctx context.Context, question string) (string, error) {
	if err := w.conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return "", err
	}
	defer context.AfterFunc(ctx, func() { _ = w.conn.SetDeadline(time.Now()) })()
	if _, err := w.conn.Write([]byte(question)); err != nil {
		return "", err
	}
	answer := make([]byte, 32)
	n, err := w.conn.Read(answer)
	if err != nil {
		return "", err
	}
	text, found := strings.CutSuffix(string(answer[:n]), "\r\n")
	if !found {
		return "", errors.New("answer without end")
	}
	return text, nil
}

// Close ends a Read that waits for the scale.
func (w *weighing) Close() error {
	w.tick.Stop()
	return w.conn.Close()
}

// A whole plugin for a scale with a TCP port. In a plugin of its own, what is
// in this example's body is the body of main.
func Example() {
	sdk.Serve("scale", newScale)
}
