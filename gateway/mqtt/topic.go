package mqtt

import (
	"strings"
	"unicode/utf8"
)

const maxString = 65535 // bytes, section 1.5.4

// CheckTopic says what is wrong with a topic name (section 4.7), nil if
// nothing. The error is an *Error.
func CheckTopic(topic string) error {
	if err := checkText(topic, utf8.ValidString(topic)); err != nil {
		return err
	}
	if err := checkTopic(topic); err != nil {
		return err
	}
	return nil
}

// checkTopic checks a topic that is a valid MQTT string.
func checkTopic[T string | []byte](topic T) *Error {
	switch {
	case len(topic) == 0:
		return &Error{TopicNameInvalid, "MQTT-4.7.3-1", "topic name is empty"}
	case len(topic) > maxString:
		return &Error{TopicNameInvalid, "MQTT-4.7.3-3", "topic name is longer than 65535 bytes"}
	}
	for i := range len(topic) {
		if topic[i] == '+' || topic[i] == '#' {
			return &Error{TopicNameInvalid, "MQTT-4.7.0-1", "wildcard in a topic name"}
		}
	}
	return nil
}

// CheckFilter says what is wrong with a topic filter (section 4.7), shared ones
// (section 4.8.2) included, nil if nothing. The error is an *Error.
func CheckFilter(filter string) error {
	if err := checkText(filter, utf8.ValidString(filter)); err != nil {
		return err
	}
	if err := checkFilter(filter); err != nil {
		return err
	}
	return nil
}

func checkFilter(filter string) *Error {
	switch {
	case filter == "":
		return &Error{TopicFilterInvalid, "MQTT-4.7.3-1", "topic filter is empty"}
	case len(filter) > maxString:
		return &Error{TopicFilterInvalid, "MQTT-4.7.3-3", "topic filter is longer than 65535 bytes"}
	}
	if shared, ok := strings.CutPrefix(filter, sharePrefix); ok {
		group, rest, _ := strings.Cut(shared, "/")
		switch {
		case group == "":
			return &Error{TopicFilterInvalid, "MQTT-4.8.2-1", "share name is empty"}
		case strings.ContainsAny(group, "+#"):
			return &Error{TopicFilterInvalid, "MQTT-4.8.2-2", "wildcard in a share name"}
		case rest == "":
			return &Error{TopicFilterInvalid, "MQTT-4.8.2-2", "shared subscription without a topic filter"}
		case strings.HasPrefix(rest, sharePrefix):
			// What follows the share name is a filter of a non-shared subscription.
			return &Error{TopicFilterInvalid, "section 4.8.2", "shared subscription inside another"}
		}
		filter = rest
	}
	return checkLevels(filter)
}

func checkLevels(filter string) *Error {
	for more := true; more; {
		var level string
		level, filter, more = strings.Cut(filter, "/")
		switch {
		case level == "#" && more:
			return &Error{TopicFilterInvalid, "MQTT-4.7.1-1", "'#' is not the last level"}
		case level != "#" && strings.Contains(level, "#"):
			return &Error{TopicFilterInvalid, "MQTT-4.7.1-1", "'#' is not a level of its own"}
		case level != "+" && strings.Contains(level, "+"):
			return &Error{TopicFilterInvalid, "MQTT-4.7.1-2", "'+' is not a level of its own"}
		}
	}
	return nil
}

// Match reports whether topic matches filter. Both must be well formed; a
// shared filter is split first. A filter that starts with a wildcard does not
// match a topic that starts with '$' [MQTT-4.7.2-1].
func Match(filter, topic string) bool {
	if startsWithWildcard(filter) && strings.HasPrefix(topic, "$") {
		return false
	}
	for {
		f, filterRest, moreFilter := strings.Cut(filter, "/")
		if f == "#" {
			return true
		}
		t, topicRest, moreTopic := strings.Cut(topic, "/")
		switch {
		case f != "+" && f != t:
			return false
		case !moreTopic: // "a/#" matches its parent "a" as well
			return !moreFilter || filterRest == "#"
		case !moreFilter:
			return false
		}
		filter, topic = filterRest, topicRest
	}
}

// Covers reports whether every topic that matches sub also matches filter.
// Both must be well formed; shared filters are split first.
func Covers(filter, sub string) bool {
	if startsWithWildcard(filter) && strings.HasPrefix(sub, "$") {
		return false
	}
	switch sub { // no topic is empty, so these have no parent to match
	case "#":
		sub = "+/#"
	case "/#":
		sub = "/+/#"
	}
	for {
		f, filterRest, moreFilter := strings.Cut(filter, "/")
		if f == "#" {
			return true
		}
		s, subRest, moreSub := strings.Cut(sub, "/")
		switch {
		case s == "#": // matches any depth, and its parent
			return false
		case f != "+" && f != s:
			return false
		case !moreSub:
			return !moreFilter || filterRest == "#"
		case !moreFilter:
			return false
		}
		filter, sub = filterRest, subRest
	}
}

func startsWithWildcard(filter string) bool {
	return strings.HasPrefix(filter, "+") || strings.HasPrefix(filter, "#")
}

const sharePrefix = "$share/"

// Overlap reports whether some topic matches both filters. Both must be well
// formed.
func Overlap(a, b string) bool {
	for first := true; ; first = false {
		la, ra, moreA := strings.Cut(a, "/")
		lb, rb, moreB := strings.Cut(b, "/")
		switch {
		case la == "#":
			return !first || !strings.HasPrefix(lb, "$") // [MQTT-4.7.2-1]
		case lb == "#":
			return !first || !strings.HasPrefix(la, "$")
		case first && (la == "+" && strings.HasPrefix(lb, "$") || lb == "+" && strings.HasPrefix(la, "$")):
			return false
		case la != "+" && lb != "+" && la != lb:
			return false
		case !moreA && !moreB:
			return true
		case !moreA: // "a" and "a/#" share "a"
			return rb == "#"
		case !moreB:
			return ra == "#"
		}
		a, b = ra, rb
	}
}

// SplitShared splits "$share/{group}/{filter}"; ok is false for other filters.
// The filter must be well formed.
func SplitShared(filter string) (group, rest string, ok bool) {
	shared, ok := strings.CutPrefix(filter, sharePrefix)
	if !ok {
		return "", "", false
	}
	return strings.Cut(shared, "/")
}
