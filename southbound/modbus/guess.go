package modbus

import (
	"math"
	"slices"
	"time"

	"github.com/headgate-io/headgate/southbound"
)

// A Guess is what registers mean if they are read in one way.
type Guess struct {
	Type      string `json:"type"`
	Order     string `json:"order"` // empty where it makes no difference
	Registers int    `json:"registers"`
	Value     any    `json:"value"`
	Plausible bool   `json:"plausible"`
}

// Guesses reads the first of some registers in every type and order that they
// suffice for, and marks what looks like a measurement. now is for times.
func Guesses(wire []byte, now time.Time) (all []Guess) {
	for _, k := range kinds {
		if k.words == 0 && k.class != moment || k.words*2 > len(wire) || k.class == truth || k.class == field1 || k.name == "int8" || k.name == "uint8" {
			continue
		}
		var seen []any
		for _, order := range []string{"ABCD", "CDAB", "BADC", "DCBA"} {
			tag := Tag{Name: "t", Table: Holding, Type: k.name, Order: order}
			fields, err := compile(tag)
			if err != nil || 2*fields[0].size > len(wire) {
				continue
			}
			f := &fields[0]
			value, quality := f.decode(wire[:2*f.size])
			if quality != southbound.Good || slices.Contains(seen, value) {
				continue
			}
			seen = append(seen, value)
			if f.size == 1 {
				order = map[string]string{"ABCD": "AB", "BADC": "BA"}[order]
			}
			all = append(all, Guess{k.name, order, f.size, value, plausible(k, value, now)})
		}
	}
	if text, quality := guessText(wire); quality {
		all = append(all, Guess{"string", "", len(wire) / 2, text, true})
	}
	return all
}

// plausible is for values that chance hardly brings about: of 16 bits, none are.
func plausible(k kind, value any, now time.Time) bool {
	if text, ok := value.(string); ok { // a time
		t, err := time.Parse(time.RFC3339, text)
		return err == nil && t.After(now.AddDate(-15, 0, 0)) && t.Before(now.AddDate(1, 0, 0))
	}
	v, ok := asFloat(value)
	if !ok || v == 0 || k.words < 2 {
		return false
	}
	v = math.Abs(v)
	switch k.class {
	case floating:
		return v >= 0.01 && v < 1e7
	case integer, signed1s:
		return k.width >= 32 && v >= 1 && v < map[int]float64{32: 1e7, 48: 1e10, 64: 1e13}[k.width]
	case modulo:
		return v < math.Pow(10, float64(4*(k.words-1)))
	}
	return false
}

func guessText(wire []byte) (string, bool) {
	fields, err := compile(Tag{Name: "t", Table: Holding, Type: "string", Length: len(wire) / 2})
	if err != nil {
		return "", false
	}
	value, quality := fields[0].decode(wire)
	text, _ := value.(string)
	if quality != southbound.Good || len(text) < 3 {
		return "", false
	}
	for _, r := range text {
		if r < ' ' || r > '~' {
			return "", false
		}
	}
	return text, true
}
