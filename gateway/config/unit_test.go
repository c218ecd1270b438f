package config

import (
	"testing"
	"time"
)

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "800ms": 800 * time.Millisecond, "1h30m": 90 * time.Minute, "7d": 7 * day, "1d12h": 36 * time.Hour,
		"-5s": -5 * time.Second, "-1d": -day, "1.5h": 90 * time.Minute, "106751d": 106751 * day,
	} {
		got, f := parseSpan(word{text: text})
		if f != nil || got != want {
			t.Errorf("parseSpan(%q) = %v, %v; want %v", text, got, f, want)
		}
		if again, f := parseSpan(word{text: showSpan(got)}); got >= 0 && (f != nil || again != got) {
			t.Errorf("showSpan(%v) = %q, which is %v", got, showSpan(got), again)
		}
	}
	for _, text := range []string{"", "5", "5.0", "d", "1.5d", "1d-1h", "-1d1h", "106752d", "106751d24h", "1w", "5 s", "1d ", "0x1d", "1h1d", "inf"} {
		if got, f := parseSpan(word{text: text}); f == nil {
			t.Errorf("parseSpan(%q) = %v, want a fault", text, got)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "0B": 0, "512B": 512, "64KiB": 64 << 10, "64 KiB": 64 << 10, "1MiB": 1 << 20, "2GiB": 2 << 30, "8388607TiB": 8388607 << 40,
		"-1KiB": -1024,
	} {
		got, f := parseSize(word{text: text})
		if f != nil || got != want {
			t.Errorf("parseSize(%q) = %v, %v; want %v", text, got, f, want)
		}
		if again, f := parseSize(word{text: showSize(got)}); f != nil || again != got {
			t.Errorf("showSize(%v) = %q, which is %v", got, showSize(got), again)
		}
	}
	for _, text := range []string{"", "5", "1KB", "1kib", "1.5GiB", "B", "KiB", "8388608TiB", "-8388609TiB", "1  KiB", "0x1B"} {
		if got, f := parseSize(word{text: text}); f == nil {
			t.Errorf("parseSize(%q) = %v, want a fault", text, got)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	known := []string{"address", "id", "key", "certificate", "client_ca"}
	for written, want := range map[string]string{
		"adress": "address", "Address": "address", "di": "", "i": "id", "kez": "key", "certifcate": "certificate", "clientca": "client_ca",
		"foo": "", "": "", "passwd": "",
	} {
		if _, got := didYouMean(written, known); got != want {
			t.Errorf("didYouMean(%q) = %q, want %q", written, got, want)
		}
	}
}
