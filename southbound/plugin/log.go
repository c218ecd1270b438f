package plugin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	maxLine   = 8 << 10 // bytes; the rest of a line is dropped
	lineRate  = 50      // lines/s that are logged in the long run
	lineBurst = 200     // lines that are logged at once
)

// lineLog passes on what a plugin prints, a record per line. Lines that are
// JSON objects keep their level and message; everything else is the plugin's
// word and logged as text.
type lineLog struct {
	logger *slog.Logger
	now    func() time.Time

	tokens  float64 // lines that may still be logged at time filled
	filled  time.Time
	dropped int

	mu   sync.Mutex // covers last
	last string     // the line that most likely says why the plugin died
}

func newLineLog(logger *slog.Logger, now func() time.Time) *lineLog {
	return &lineLog{logger: logger, now: now, tokens: lineBurst, filled: now()}
}

// copy logs the lines of r until it ends. It never stops reading before that:
// a plugin must not block on its log.
func (l *lineLog) copy(r io.Reader) {
	in := bufio.NewReaderSize(r, maxLine)
	cut := false // the last piece was the begin of a longer line
	for {
		piece, err := in.ReadSlice('\n')
		if !cut && len(piece) > 0 {
			l.line(piece)
		}
		cut = errors.Is(err, bufio.ErrBufferFull)
		if err != nil && !cut {
			break
		}
	}
	l.report()
}

func (l *lineLog) line(raw []byte) {
	level, message, fields := parseLine(bytes.TrimRight(raw, "\r\n"))
	if message == "" {
		return
	}
	l.remember(message)
	now := l.now()
	l.tokens = min(lineBurst, l.tokens+lineRate*max(0, now.Sub(l.filled).Seconds()))
	l.filled = now
	if l.tokens < 1 {
		l.dropped++
		return
	}
	l.tokens--
	l.report()
	if fields != "" {
		l.logger.Log(context.Background(), level, message, "fields", fields)
		return
	}
	l.logger.Log(context.Background(), level, message)
}

// report says how many lines were dropped since the last report.
func (l *lineLog) report() {
	if l.dropped > 0 {
		l.logger.Warn("plugin logs too much; lines dropped", "lines", l.dropped)
		l.dropped = 0
	}
}

func (l *lineLog) remember(message string) {
	const most = 512
	l.mu.Lock()
	defer l.mu.Unlock()
	if isPanic(l.last) {
		return // what follows is its stack
	}
	l.last = strings.ToValidUTF8(message[:min(most, len(message))], "")
}

func isPanic(line string) bool {
	return strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ")
}

// lastWords returns the line that most likely says why the plugin died.
func (l *lineLog) lastWords() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// parseLine takes level and message out of a line of slog or hclog. Whatever
// is not as they write it is text, at level info. fields is the rest, as JSON.
func parseLine(line []byte) (level slog.Level, message, fields string) {
	text := strings.ToValidUTF8(string(line), "\uFFFD")
	var object map[string]json.RawMessage
	if !bytes.HasPrefix(line, []byte("{")) || json.Unmarshal(line, &object) != nil {
		return slog.LevelInfo, text, ""
	}
	if message = take(object, "msg", "@message"); message == "" {
		return slog.LevelInfo, text, ""
	}
	if level.UnmarshalText([]byte(take(object, "level", "@level"))) != nil {
		level = slog.LevelInfo
	}
	level = min(max(level, slog.LevelDebug), slog.LevelError)
	take(object, "time", "@timestamp") // ours says when
	if len(object) == 0 {
		return level, message, ""
	}
	rest, err := json.Marshal(object)
	if err != nil {
		return level, message, ""
	}
	return level, message, string(rest)
}

// take removes the keys and returns the first that holds a string.
func take(object map[string]json.RawMessage, keys ...string) string {
	found := ""
	for _, key := range keys {
		var s string
		if raw, ok := object[key]; ok && json.Unmarshal(raw, &s) == nil && found == "" {
			found = s
		}
		delete(object, key)
	}
	return found
}
