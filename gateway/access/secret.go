package access

import (
	"fmt"
	"log/slog"
)

// A Secret is bytes that no printing, logging or encoding shows. It converts
// from and to []byte; whoever does that takes care of them.
type Secret []byte

const redacted = "[redacted]"

// String, GoString, Format, LogValue, MarshalText and MarshalJSON all say
// "[redacted]" and nothing else.
func (Secret) String() string { return redacted }

// GoString is for %#v.
func (Secret) GoString() string { return redacted }

// Format covers every verb, %x and %d included.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue is for slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText is for encodings that want text.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON is for JSON, where a []byte would be base64.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
