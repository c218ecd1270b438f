package access

import (
	"fmt"
	"slices"
	"strings"
)

// A subject is whom a rule speaks of.
type subject struct {
	kind subjectKind
	text string
}

type subjectKind uint8

const (
	exactly subjectKind = iota
	anybody
	inRole
	withPrefix
)

func (s *subject) is(id *Identity) bool {
	switch s.kind {
	case anybody:
		return true
	case inRole:
		return slices.Contains(id.Roles, s.text)
	case withPrefix:
		return strings.HasPrefix(id.Name, s.text)
	default:
		return id.Name == s.text
	}
}

func parseWho(who string) (subject, error) {
	if who == "*" {
		return subject{kind: anybody}, nil
	}
	if role, ok := strings.CutPrefix(who, "@"); ok {
		if !plainName(role) {
			return subject{}, fmt.Errorf("%q is not a role: write @ and letters, digits, '.', '_' or '-'", who)
		}
		return subject{kind: inRole, text: role}, nil
	}
	for _, prefix := range []string{"link:", "device:"} {
		name, ok := strings.CutPrefix(who, prefix)
		if ok && name == "*" {
			return subject{kind: withPrefix, text: prefix}, nil
		}
		if ok && plainName(name) {
			return subject{text: who}, nil
		}
	}
	if !plainName(who) {
		return subject{}, fmt.Errorf("%q is nobody: write an identity, @role, link:NAME, device:NAME, link:*, device:* or *", who)
	}
	return subject{text: who}, nil
}
