package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const (
	day     = 24 * time.Hour
	maxDays = int64(math.MaxInt64 / day)
)

// parseSpan reads a duration as Go writes it, with whole days in front: 800ms,
// 1h30m, 7d, 1d12h. Zero needs no unit, everything else does.
func parseSpan(w word) (time.Duration, *fault) {
	bad := &fault{
		fmt.Sprintf("must be a duration, not %q", w.text),
		"write a number with its unit: 800ms, 30s, 5m, 12h, 7d",
	}
	if w.text == "0" && !w.quoted {
		return 0, nil
	}
	if _, err := strconv.ParseFloat(w.text, 64); err == nil {
		return 0, &fault{fmt.Sprintf("is %s without a unit", w.text), "write the unit: 800ms, 30s, 5m, 12h, 7d"}
	}
	digits, rest, days := strings.Cut(w.text, "d")
	if !days {
		v, err := time.ParseDuration(w.text)
		if err != nil {
			return 0, bad
		}
		return v, nil
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < -maxDays || n > maxDays {
		return 0, bad
	}
	v := time.Duration(n) * day
	if rest == "" {
		return v, nil
	}
	more, err := time.ParseDuration(rest)
	if err != nil || more < 0 || n < 0 || v+more < v {
		return 0, bad
	}
	return v + more, nil
}

// showSpan is the inverse of parseSpan.
func showSpan(v time.Duration) string {
	days, rest := v/day, v%day
	s := ""
	if days != 0 {
		s = fmt.Sprintf("%dd", days)
	}
	if rest == 0 {
		if s == "" {
			return "0"
		}
		return s
	}
	t := rest.String()
	if strings.HasSuffix(t, "m0s") {
		t = strings.TrimSuffix(t, "0s")
	}
	if strings.HasSuffix(t, "h0m") {
		t = strings.TrimSuffix(t, "0m")
	}
	return s + t
}

// Largest first, for showSize.
var sizeUnits = []struct {
	name  string
	bytes int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// parseSize reads a whole number with its unit: 512B, 64KiB, 2GiB. Zero needs
// no unit, everything else does.
func parseSize(w word) (int64, *fault) {
	if w.text == "0" && !w.quoted {
		return 0, nil
	}
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(w.text, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSuffix(digits, " "), 10, 64)
		if err != nil || n > math.MaxInt64/u.bytes || n < math.MinInt64/u.bytes {
			break
		}
		return n * u.bytes, nil
	}
	if _, err := strconv.ParseFloat(w.text, 64); err == nil {
		return 0, &fault{fmt.Sprintf("is %s without a unit", w.text), "write the unit: 512B, 64KiB, 16MiB, 2GiB"}
	}
	return 0, &fault{
		fmt.Sprintf("must be a size, not %q", w.text),
		"write a whole number with B, KiB, MiB, GiB or TiB: 64KiB, 2GiB",
	}
}

// showSize is the inverse of parseSize.
func showSize(v int64) string {
	for _, u := range sizeUnits {
		if v != 0 && v%u.bytes == 0 {
			return strconv.FormatInt(v/u.bytes, 10) + u.name
		}
	}
	return "0"
}
