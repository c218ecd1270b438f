package access

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// An ImportedRule is a line of a mosquitto acl_file and the rule that it becomes.
type ImportedRule struct {
	Rule Rule // without topics: the line is left out
	Line int
	Text string // the line
	Note string // what the rule does not say as the line did; empty: nothing
}

// ImportACL says for whom the lines of an acl_file are, in our words.
type ImportACL struct {
	Role      string // of the users that come from mosquitto: "pattern" lines are for them
	Anonymous string // identity of clients without credentials; empty: there are none
}

// Read makes rules of an acl_file, in an order in which the first that matches
// decides as mosquitto does: of each user the denials, then the rest, and then
// patterns, again the denials first. What cannot be said here makes the rules
// narrower, never wider: such an allowance is left out, such a denial denies
// more. Lines that mosquitto would refuse with the whole file are told one by one,
// and there are no rules then.
func (i ImportACL) Read(r io.Reader) ([]ImportedRule, []LineError) {
	a := aclReader{ImportACL: i}
	lines := bufio.NewScanner(io.LimitReader(r, maxUsersFile))
	lines.Buffer(nil, maxUserLine)
	var refused []LineError
	n := 1
	for ; lines.Scan(); n++ {
		line := strings.TrimRight(lines.Text(), " \t\r\n\v\f")
		if line == "" || line[0] == '#' {
			continue
		}
		if err := a.line(n, line); err != nil {
			refused = append(refused, LineError{n, err})
		}
	}
	if err := lines.Err(); err != nil {
		refused = append(refused, LineError{n, lineError(err)})
	}
	if len(refused) > 0 {
		return nil, refused
	}
	return a.rules(), nil
}

type aclReader struct {
	ImportACL
	user    string // of the topics that follow; empty: anonymous clients
	users   []aclLine
	pattern []aclLine // for everybody, and asked last
}

type aclLine struct {
	ImportedRule
	topic   string
	who     string
	pattern bool
}

func (a *aclReader) line(n int, text string) error {
	word, rest, _ := strings.Cut(strings.TrimLeft(text, " "), " ")
	rest = strings.TrimSpace(rest)
	switch {
	case rest == "":
		return errors.New("not user NAME, topic [ACCESS] TOPIC or pattern [ACCESS] TOPIC")
	case word == "user":
		a.user = rest
		return nil
	case word != "topic" && word != "pattern":
		return errors.New("begins neither with user, topic nor pattern")
	}
	l := aclLine{ImportedRule: ImportedRule{Line: n, Text: strings.TrimSpace(text)}, topic: rest}
	both := []Action{Publish, Subscribe}
	l.Rule.Allow, l.Rule.Actions = true, both
	if kind, topic, ok := strings.Cut(rest, " "); ok {
		l.topic = strings.TrimSpace(topic)
		switch kind {
		case "read":
			l.Rule.Actions = both[1:]
		case "write":
			l.Rule.Actions = both[:1]
		case "readwrite":
		case "deny":
			l.Rule.Allow = false
		default:
			return fmt.Errorf("access %q is neither read, write, readwrite nor deny", kind)
		}
	}
	if err := mqtt.CheckFilter(l.topic); err != nil {
		return err
	}
	if word == "pattern" {
		l.who, l.pattern = "@"+a.Role, true
		a.pattern = append(a.pattern, l)
		return nil
	}
	if l.who = a.user; a.user == "" {
		l.who = a.Anonymous
	}
	a.users = append(a.users, l)
	return nil
}

// rules puts the lines in order and into our words.
func (a *aclReader) rules() []ImportedRule {
	deniedFirst := func(x, y aclLine) int {
		switch {
		case x.Rule.Allow == y.Rule.Allow:
			return 0
		case y.Rule.Allow:
			return -1
		}
		return 1
	}
	slices.SortStableFunc(a.users, deniedFirst) // rules of different users do not meet
	slices.SortStableFunc(a.pattern, deniedFirst)
	var special []string // allowed, and start with '$', which no wildcard stands for
	for _, l := range slices.Concat(a.users, a.pattern) {
		if t := l.translate(nil); l.Rule.Allow && l.topic[0] == '$' {
			special = append(special, t.Rule.Topics...)
		}
	}
	var rules []ImportedRule
	for _, l := range slices.Concat(a.users, a.pattern) {
		rules = append(rules, l.translate(special))
	}
	return rules
}

var errNoIdentity = errors.New("there are no clients without credentials: say with --anonymous-as who they are, and set anonymous_as on the listener")

func (l *aclLine) translate(special []string) ImportedRule {
	r := l.ImportedRule
	r.Rule.Who = l.who
	err := errNoIdentity
	switch {
	case l.pattern:
		_, err = parseWho(l.who)
	case l.who != "":
		err = CheckName(l.who)
	}
	if err != nil {
		r.Note = "left out: " + err.Error()
		return r
	}
	topic := l.topic
	if l.pattern {
		topic = strings.ReplaceAll(topic, "%u", placeholder)
	}
	exact := !strings.ContainsAny(l.topic, "{}") && !(l.pattern && strings.Contains(l.topic, "%c"))
	switch {
	case isShared(topic):
		r.Note = "left out: a shared subscription is asked about by its filter"
	case exact:
		r.Rule.Topics = []string{topic}
	case r.Rule.Allow:
		r.Note = "left out: rules know neither client ids nor topics with braces"
	default:
		r.Rule.Topics = widen(l.topic, special)
		r.Note = "denies more than the line: rules know neither client ids nor topics with braces"
	}
	return r
}

// widen covers at least what a denial covers: all below a level with a client's
// id or name, and any text for a level with braces.
func widen(topic string, special []string) []string {
	levels := strings.Split(topic, "/")
	for i, level := range levels {
		if strings.Contains(level, "%c") || strings.Contains(level, "%u") {
			levels = append(levels[:i], "#")
			break
		}
		if strings.ContainsAny(level, "{}") {
			levels[i] = "+"
		}
	}
	topics := []string{strings.Join(levels, "/")}
	if levels[0] == "#" || levels[0] == "+" {
		topics = append(topics, special...)
	}
	return topics
}
