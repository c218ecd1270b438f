package config

import (
	"cmp"
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// The scalars of the file. A zero one was not written and has no default.
type (
	text     = scalar[string, textSyntax]
	label    = scalar[string, nameSyntax]
	filePath = scalar[string, pathSyntax]
	register = scalar[string, registerSyntax]
	boolean  = scalar[bool, flagSyntax]
	whole    = scalar[int64, wholeSyntax]
	raw      = scalar[uint64, rawSyntax]
	sentinel = scalar[noValue, sentinelSyntax]
	number   = scalar[float64, numberSyntax]
	percent  = scalar[float64, percentSyntax]
	span     = scalar[time.Duration, spanSyntax]
	size     = scalar[int64, sizeSyntax]
	literal  = scalar[any, literalSyntax]
)

// scalar is one value with its place.
type scalar[T any, S syntax[T]] struct {
	at  place
	set bool // written in a file, well or badly
	has bool // v is valid, from a file or by default
	v   T
}

// syntax is how a T is written. Its zero value is used.
type syntax[T any] interface {
	read(w word, k key) (T, *fault)
	show(v T) string
	kind() string
}

// fault says what is wrong with a value, and what to do.
type fault struct{ message, fix string }

func (s *scalar[T, S]) decode(r *reader, n ast.Node, k key) {
	at := r.at(n)
	if s.set {
		r.twice(at, k.name, s.at)
		return
	}
	s.at, s.set = at, true
	w, ok := r.word(n, k, s.kind())
	if !ok {
		return
	}
	var f *fault
	if s.v, f = (*new(S)).read(w, k); f != nil {
		r.rep.add(at, f.fix, "%s %s", k.name, f.message)
		return
	}
	s.has = true
}

func (s *scalar[T, S]) preset(k key) {
	if s.set || k.def == "" {
		return
	}
	v, f := (*new(S)).read(word{text: k.def, plain: "text"}, k)
	if f != nil {
		panic("default of " + k.name + " " + f.message) // the key table is wrong; every test shows it
	}
	s.v, s.has = v, true
}

// good says that it was written, and well.
func (s *scalar[T, S]) good() bool    { return s.set && s.has }
func (s *scalar[T, S]) written() bool { return s.set }
func (s *scalar[T, S]) given() bool   { return s.has }
func (s *scalar[T, S]) kind() string  { return (*new(S)).kind() }
func (s *scalar[T, S]) show() string  { return (*new(S)).show(s.v) }

type textSyntax struct{}

func (textSyntax) kind() string { return "text" }

func (textSyntax) read(w word, k key) (string, *fault) {
	if w.plain != "text" {
		return "", &fault{"must be text, not " + w.plain, fmt.Sprintf("put it in quotes: %q", w.text)}
	}
	if strings.ContainsFunc(w.text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", &fault{"contains a control character", "write it on one line without tabs"}
	}
	if w.text == "" && k.required {
		return "", &fault{"is empty", "write a value. " + k.advice()}
	}
	if len(k.oneOf) > 0 && !slices.Contains(k.oneOf, w.text) {
		suffix, _ := didYouMean(w.text, k.oneOf)
		return "", &fault{fmt.Sprintf("cannot be %q%s", w.text, suffix), "write one of " + strings.Join(k.oneOf, ", ")}
	}
	return w.text, nil
}

// notText is what YAML 1.2, or 1.1 in other people's tools, takes for no text.
var notText = []string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}

var plainText = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9._/-]*$`)

func (textSyntax) show(v string) string {
	if plainText.MatchString(v) && !slices.Contains(notText, strings.ToLower(v)) {
		return v
	}
	return string(quoteJSON(v))
}

type nameSyntax struct{ textSyntax }

func (nameSyntax) kind() string { return "name" }

func (nameSyntax) read(w word, k key) (string, *fault) {
	v, f := textSyntax{}.read(w, k)
	if f == nil {
		if f = checkName(v); f != nil {
			f.message = fmt.Sprintf("%q %s", v, f.message)
		}
	}
	return v, f
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// checkName holds for everything that becomes a level of a topic.
func checkName(v string) *fault {
	if !namePattern.MatchString(v) || v == "." || v == ".." {
		return &fault{"is not a name", "write 1 to 64 letters, digits, dots, underscores or hyphens"}
	}
	return nil
}

// registerSyntax takes a bare number for text, so that 40001 gets the answer
// that helps.
type registerSyntax struct{ textSyntax }

func (registerSyntax) read(w word, k key) (string, *fault) {
	if w.plain == "a number" {
		w.plain = "text"
	}
	return textSyntax{}.read(w, k)
}

type pathSyntax struct{ textSyntax }

func (pathSyntax) kind() string { return "path" }

func (pathSyntax) read(w word, k key) (string, *fault) {
	v, f := textSyntax{}.read(w, k)
	switch {
	case f != nil:
		return "", f
	case v == "":
		return "", &fault{"is empty", "write the path of a file, or remove the key"}
	case placeholders.MatchString(v):
		return "", &fault{fmt.Sprintf("is %q, and nothing is replaced in paths", v), "spell it out"}
	case filepath.IsAbs(v):
		return filepath.Clean(v), nil
	}
	return filepath.Join(w.dir, v), nil
}

type flagSyntax struct{}

func (flagSyntax) kind() string       { return "true or false" }
func (flagSyntax) show(v bool) string { return strconv.FormatBool(v) }

func (flagSyntax) read(w word, _ key) (bool, *fault) {
	if !w.quoted && (w.text == "true" || w.text == "false") {
		return w.text == "true", nil
	}
	return false, &fault{fmt.Sprintf("must be true or false, not %q", w.text), "write true or false, without quotes"}
}

type wholeSyntax struct{}

func (wholeSyntax) kind() string        { return "whole number" }
func (wholeSyntax) show(v int64) string { return strconv.FormatInt(v, 10) }

func (wholeSyntax) read(w word, k key) (int64, *fault) { return within(w, k, parseWhole) }

func parseWhole(w word) (int64, *fault) {
	v, err := strconv.ParseInt(w.text, 10, 64)
	if err != nil || w.quoted || w.text != strconv.FormatInt(v, 10) {
		return 0, &fault{fmt.Sprintf("must be a whole number, not %q", w.text), "write digits only, without quotes"}
	}
	return v, nil
}

type rawSyntax struct{}

func (rawSyntax) kind() string         { return "raw value" }
func (rawSyntax) show(v uint64) string { return fmt.Sprintf("0x%X", v) }

func (rawSyntax) read(w word, _ key) (uint64, *fault) {
	digits, base := w.text, 10
	if rest, hex := strings.CutPrefix(w.text, "0x"); hex {
		digits, base = rest, 16
	}
	v, err := strconv.ParseUint(digits, base, 64)
	if err != nil || w.quoted || base == 10 && digits != strconv.FormatUint(v, 10) {
		return 0, &fault{
			fmt.Sprintf("must be a raw value, not %q", w.text),
			"write the bits as read from the device, 0x8000 or 32768 for example",
		}
	}
	return v, nil
}

// noValue is a raw value, or the name of some.
type noValue struct {
	bits uint64
	name string // nan or sunspec
}

type sentinelSyntax struct{}

func (sentinelSyntax) kind() string { return "raw value, nan or sunspec" }

func (sentinelSyntax) show(v noValue) string {
	if v.name != "" {
		return v.name
	}
	return rawSyntax{}.show(v.bits)
}

func (sentinelSyntax) read(w word, k key) (noValue, *fault) {
	if w.text == "nan" || w.text == "sunspec" {
		return noValue{name: w.text}, nil
	}
	v, f := rawSyntax{}.read(w, k)
	return noValue{bits: v}, f
}

type numberSyntax struct{}

func (numberSyntax) kind() string          { return "number" }
func (numberSyntax) show(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

var numberPattern = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

func (numberSyntax) read(w word, _ key) (float64, *fault) {
	v, err := strconv.ParseFloat(w.text, 64)
	if err != nil || w.quoted || math.IsInf(v, 0) || !numberPattern.MatchString(w.text) {
		return 0, &fault{fmt.Sprintf("must be a number, not %q", w.text), "write a finite number without quotes, 0.1 for example"}
	}
	return v, nil
}

// literalSyntax takes a value of any type for what YAML does: a bool, an int64, a
// float64 or a string.
type literalSyntax struct{}

func (literalSyntax) kind() string { return "value" }

func (literalSyntax) show(v any) string {
	switch v := v.(type) {
	case string:
		return string(quoteJSON(v))
	case float64:
		return numberSyntax{}.show(v)
	}
	return fmt.Sprint(v)
}

func (literalSyntax) read(w word, k key) (any, *fault) {
	switch {
	case w.plain == "true or false":
		return flagSyntax{}.read(w, k)
	case w.plain != "a number":
		return textSyntax{}.read(w, k)
	}
	if v, f := parseWhole(w); f == nil {
		return v, nil
	}
	return numberSyntax{}.read(w, k)
}

// percentSyntax reads 10% as 0.1.
type percentSyntax struct{}

func (percentSyntax) kind() string          { return "percentage" }
func (percentSyntax) show(v float64) string { return strconv.FormatFloat(v*100, 'g', 6, 64) + "%" }

func (percentSyntax) read(w word, k key) (float64, *fault) { return within(w, k, parsePercent) }

func parsePercent(w word) (float64, *fault) {
	digits, ok := strings.CutSuffix(w.text, "%")
	v, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || !numberPattern.MatchString(digits) {
		return 0, &fault{fmt.Sprintf("must be a percentage, not %q", w.text), "write a number with its sign: 10%"}
	}
	return v / 100, nil
}

type spanSyntax struct{}

func (spanSyntax) kind() string                               { return "duration" }
func (spanSyntax) show(v time.Duration) string                { return showSpan(v) }
func (spanSyntax) read(w word, k key) (time.Duration, *fault) { return within(w, k, parseSpan) }

type sizeSyntax struct{}

func (sizeSyntax) kind() string                       { return "size" }
func (sizeSyntax) show(v int64) string                { return showSize(v) }
func (sizeSyntax) read(w word, k key) (int64, *fault) { return within(w, k, parseSize) }

// within parses w and holds it to the range of k.
func within[T cmp.Ordered](w word, k key, parse func(word) (T, *fault)) (T, *fault) {
	v, f := parse(w)
	if f != nil {
		return v, f
	}
	if k.min != "" {
		if low, _ := parse(word{text: k.min}); v < low {
			return v, &fault{fmt.Sprintf("is %s, and the least is %s", w.text, k.min), "write " + rangeOf(k)}
		}
	}
	if k.max != "" {
		if high, _ := parse(word{text: k.max}); v > high {
			return v, &fault{fmt.Sprintf("is %s, and the most is %s", w.text, k.max), "write " + rangeOf(k)}
		}
	}
	return v, nil
}

func rangeOf(k key) string {
	switch {
	case k.min == k.max:
		return k.min
	case k.max == "":
		return k.min + " or more"
	case k.min == "":
		return k.max + " or less"
	}
	return k.min + " to " + k.max
}
