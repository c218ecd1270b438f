package mqtt

import (
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		filter, topic string
		want          bool
	}{
		// Section 4.7.1.2.
		{"sport/tennis/player1/#", "sport/tennis/player1", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/ranking", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
		{"sport/#", "sport", true},
		{"#", "sport", true},
		{"#", "/", true},
		// Section 4.7.1.3.
		{"sport/tennis/+", "sport/tennis/player1", true},
		{"sport/tennis/+", "sport/tennis/player2", true},
		{"sport/tennis/+", "sport/tennis/player1/ranking", false},
		{"sport/+", "sport", false},
		{"sport/+", "sport/", true},
		{"+", "sport", true},
		{"+/tennis/#", "sport/tennis", true},
		{"sport/+/player1", "sport/tennis/player1", true},
		{"+/+", "/finance", true},
		{"/+", "/finance", true},
		{"+", "/finance", false},
		// Section 4.7.2.
		{"#", "$SYS/monitor", false},
		{"+/#", "$SYS/monitor", false},
		{"+/monitor/Clients", "$SYS/monitor/Clients", false},
		{"$SYS/#", "$SYS/", true},
		{"$SYS/monitor/+", "$SYS/monitor/Clients", true},
		{"$SYS/#", "$SYSTEM/x", false},
		{"a/+/b", "a/$x/b", true},
		// Section 4.7.3.
		{"ACCOUNTS", "Accounts", false},
		{"Accounts payable", "Accounts payable", true},
		{"/finance", "finance", false},
		{"a//b", "a//b", true},
		{"a/+/b", "a//b", true},
		{"a/b", "a/b/", false},
		{"a/b/", "a/b", false},
		{"a/b/c", "a/b", false},
	} {
		if got := Match(test.filter, test.topic); got != test.want {
			t.Errorf("Match(%q, %q) = %v", test.filter, test.topic, got)
		}
	}
}

// oracle is Match from the definition, level by level.
func oracle(filter, topic string) bool {
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	if strings.HasPrefix(topic, "$") && (f[0] == "+" || f[0] == "#") {
		return false
	}
	if last := len(f) - 1; f[last] == "#" {
		if len(t) < last {
			return false
		}
		f, t = f[:last], t[:last]
	}
	if len(f) != len(t) {
		return false
	}
	for i := range f {
		if f[i] != "+" && f[i] != t[i] {
			return false
		}
	}
	return true
}

// words are all sequences of one to three levels over the alphabet.
func words(levels ...string) (all []string) {
	all = append(all, levels...)
	for _, a := range levels {
		for _, b := range levels {
			all = append(all, a+"/"+b)
			for _, c := range levels {
				all = append(all, a+"/"+b+"/"+c)
			}
		}
	}
	return all
}

func TestCoversIsExact(t *testing.T) {
	topics := words("", "a", "b", "$s", "other")
	var filters []string
	for _, f := range words("", "a", "$s", "+", "#") {
		if CheckFilter(f) == nil {
			filters = append(filters, f)
		}
	}
	for _, filter := range filters {
		for _, sub := range filters {
			want := true
			for _, topic := range topics {
				if topic != "" && oracle(sub, topic) && !oracle(filter, topic) {
					want = false
				}
			}
			// Topics of three levels cannot tell "+/+/+" from "+/+/+/#".
			if strings.Count(sub, "/") == 2 && strings.HasSuffix(sub, "#") && !strings.HasSuffix(filter, "#") {
				want = false
			}
			if got := Covers(filter, sub); got != want {
				t.Errorf("Covers(%q, %q) = %v", filter, sub, got)
			}
		}
	}
}

func TestCheckTopic(t *testing.T) {
	long := strings.Repeat("a", maxString)
	for _, topic := range []string{"a", "/", "a//b", "$SYS/x", " ", "ä/\uFEFF", long} {
		if err := CheckTopic(topic); err != nil {
			t.Errorf("%.20q: %v", topic, err)
		}
	}
	for _, topic := range []string{
		"", "a/+", "#", "a+b", "a#", "a\x00b", "\xff", "\xed\xa0\x80", "\xc0\xaf", "\xf4\x90\x80\x80", long + "a",
	} {
		if CheckTopic(topic) == nil {
			t.Errorf("%.20q is accepted", topic)
		}
	}
}

func TestCheckFilter(t *testing.T) {
	for _, filter := range []string{
		"a", "/", "#", "+", "a/#", "+/+", "/+/", "+/a/#", "$SYS/#", "$share", "$SHARE/g/#",
		"$share/g/#", "$share/g/a/+", "$share/g//", "$share/g/$SYS/#", strings.Repeat("a", maxString),
	} {
		if err := CheckFilter(filter); err != nil {
			t.Errorf("%.20q: %v", filter, err)
		}
	}
	for _, filter := range []string{
		"", "a+", "a#", "a/b+/c", "+a", "#a", "#/a", "a/#/b", "##", "++", "a\x00", "\xff",
		"$share/", "$share//x", "$share/g", "$share/g/", "$share/g+/x", "$share/#/x", "$share/+/x",
		"$share/g/a#", "$share/g/$share/h/x", strings.Repeat("a", maxString+1),
	} {
		if CheckFilter(filter) == nil {
			t.Errorf("%.20q is accepted", filter)
		}
	}
}

func TestSplitShared(t *testing.T) {
	if group, rest, ok := SplitShared("$share/g/a//#"); group != "g" || rest != "a//#" || !ok {
		t.Error(group, rest, ok)
	}
	for _, filter := range []string{"a/b", "$share", "$SHARE/g/a", "$shared/g/a", "x/$share/g/a"} {
		if _, _, ok := SplitShared(filter); ok {
			t.Errorf("%q is shared", filter)
		}
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	filter, topic := "hg/+/boiler/#", "hg/press/boiler/fast"
	if n := testing.AllocsPerRun(100, func() {
		if !Match(filter, topic) || !Covers(filter, topic) || CheckTopic(topic) != nil || CheckFilter(filter) != nil {
			t.Fatal("no match")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("a/+/#", "a/b", "a/#")
	f.Add("+/#", "$a/b", "#")
	f.Add("$share/g/a", "/", "a//b")
	f.Fuzz(func(t *testing.T, filter, topic, wider string) {
		if CheckFilter(filter) != nil || CheckTopic(topic) != nil || CheckFilter(wider) != nil {
			return
		}
		if got := Match(filter, topic); got != oracle(filter, topic) {
			t.Errorf("Match(%q, %q) = %v", filter, topic, got)
		}
		if Covers(wider, filter) && Match(filter, topic) && !Match(wider, topic) {
			t.Errorf("%q covers %q but does not match %q", wider, filter, topic)
		}
	})
}
