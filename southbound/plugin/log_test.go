package plugin

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestParseLine(t *testing.T) {
	tests := []struct {
		line            string
		level           slog.Level
		message, fields string
	}{
		{"plain text", slog.LevelInfo, "plain text", ""},
		{`{"time":"x","level":"WARN","msg":"hot","bearing":3}`, slog.LevelWarn, "hot", `{"bearing":3}`},
		{`{"@level":"error","@message":"cold","@timestamp":"x"}`, slog.LevelError, "cold", ""},
		{`{"@level":1}`, slog.LevelInfo, `{"@level":1}`, ""},
		{`{"level":"DEBUG-4","msg":"m"}`, slog.LevelDebug, "m", ""},
		{`{"level":"ERROR+900","msg":"m"}`, slog.LevelError, "m", ""},
		{`{"level":"shout","msg":"m"}`, slog.LevelInfo, "m", ""},
		{`{"level":[],"msg":"m"}`, slog.LevelInfo, "m", ""},
		{`{"msg":{}}`, slog.LevelInfo, `{"msg":{}}`, ""},
		{`{"msg":"m"`, slog.LevelInfo, `{"msg":"m"`, ""},
		{`[1]`, slog.LevelInfo, `[1]`, ""},
		{"\xff", slog.LevelInfo, "\uFFFD", ""},
		{"", slog.LevelInfo, "", ""},
	}
	for _, test := range tests {
		level, message, fields := parseLine([]byte(test.line))
		if level != test.level || message != test.message || fields != test.fields {
			t.Errorf("%s: got %v %q %q", test.line, level, message, fields)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add([]byte(`{"@level":1,"@message":{},"@timestamp":[]}`))
	f.Add([]byte(`{"level":"INFO","msg":"m","a":{"b":[1,2]}}`))
	f.Add([]byte("{\xff"))
	f.Fuzz(func(t *testing.T, line []byte) {
		level, _, _ := parseLine(line)
		if level < slog.LevelDebug || level > slog.LevelError {
			t.Errorf("level %v", level)
		}
	})
}

func TestLogIsBounded(t *testing.T) {
	var out logBuffer
	now := time.Unix(0, 0)
	l := newLineLog(out.logger(), func() time.Time { return now })
	l.copy(strings.NewReader(strings.Repeat("noise\n", 10*lineBurst)))
	if n := strings.Count(out.String(), "msg=noise"); n != lineBurst {
		t.Errorf("%d lines logged at once, want %d", n, lineBurst)
	}
	if want := fmt.Sprintf("lines=%d", 9*lineBurst); !strings.Contains(out.String(), want) {
		t.Errorf("no %s in the log", want)
	}
	now = now.Add(time.Second)
	l.copy(strings.NewReader(strings.Repeat("later\n", 10*lineBurst)))
	if n := strings.Count(out.String(), "msg=later"); n != lineRate {
		t.Errorf("%d lines logged after a second, want %d", n, lineRate)
	}
}

func TestLongLineIsCut(t *testing.T) {
	var out logBuffer
	l := newLineLog(out.logger(), time.Now)
	l.copy(strings.NewReader(strings.Repeat("z", 10<<20) + "\nnext\nlast without newline"))
	got := out.String()
	if n := strings.Count(got, "z"); n != maxLine {
		t.Errorf("%d bytes of the long line logged, want %d", n, maxLine)
	}
	if !strings.Contains(got, "msg=next") || !strings.Contains(got, "last without newline") {
		t.Errorf("what follows the long line is missing: %q", got[max(0, len(got)-200):])
	}
}

func TestLastWordsArePanic(t *testing.T) {
	l := newLineLog(new(logBuffer).logger(), time.Now)
	l.copy(strings.NewReader("starting\npanic: out of oil\n\ngoroutine 1 [running]:\nmain.main()\n"))
	if got := l.lastWords(); got != "panic: out of oil" {
		t.Errorf("last words are %q", got)
	}
}
