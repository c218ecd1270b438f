package access

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// readACL makes the rules that an acl_file comes to.
func readACL(t *testing.T, text string) []Rule {
	t.Helper()
	list, err := ImportACL{Role: "mosquitto"}.Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var rules []Rule
	for _, r := range list {
		if len(r.Rule.Topics) > 0 {
			rules = append(rules, r.Rule)
		}
	}
	return rules
}

const aclText = `# a comment
topic read public/#

user alice
topic plant/#
topic read a b/c
  topic  deny   plant/secret/#
topic write only/write
topic read literal/%u
topic read {id}/x
topic deny some{thing}/+/y
topic read $share/g/x
user link:cloud
topic #
user alice
topic readwrite later
pattern write sensor/%u/data
pattern read %c/#
pattern deny by/%c/id/x
pattern deny %c
pattern read $mine/%u
pattern read shared/#
`

func TestImportACL(t *testing.T) {
	list, err := ImportACL{Role: "mosquitto"}.Read(strings.NewReader(aclText))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range list {
		note, _, _ := strings.Cut(r.Note, ":")
		got = append(got, strings.TrimSpace(fmt.Sprintf("%d %t %v %s %v %s", r.Line, r.Rule.Allow, r.Rule.Actions, r.Rule.Who, r.Rule.Topics, note)))
	}
	want := []string{
		"7 false [publish subscribe] alice [plant/secret/#]",
		"11 false [publish subscribe] alice [+/+/y $mine/{id}] denies more than the line",
		"2 true [subscribe]  [] left out",
		"5 true [publish subscribe] alice [plant/#]",
		"6 true [subscribe] alice [a b/c]",
		"8 true [publish] alice [only/write]",
		"9 true [subscribe] alice [literal/%u]",
		"10 true [subscribe] alice [] left out",
		"12 true [subscribe] alice [] left out",
		"14 true [publish subscribe] link:cloud [] left out",
		"16 true [publish subscribe] alice [later]",
		"19 false [publish subscribe] @mosquitto [by/#] denies more than the line",
		"20 false [publish subscribe] @mosquitto [# $mine/{id}] denies more than the line",
		"17 true [publish] @mosquitto [sensor/{id}/data]",
		"18 true [subscribe] @mosquitto [] left out",
		"21 true [subscribe] @mosquitto [$mine/{id}]",
		"22 true [subscribe] @mosquitto [shared/#]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if _, err := Compile(readACL(t, aclText)); err != nil {
		t.Error(err)
	}
	named, err := ImportACL{Role: "r", Anonymous: "visitor"}.Read(strings.NewReader("topic read a\n"))
	if err != nil || named[0].Rule.Who != "visitor" || len(named[0].Rule.Topics) != 1 {
		t.Errorf("anonymous: %+v, %v", named, err)
	}
}

func TestImportACLRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"user alice\n\ntopic raed a/b\n": "line 3: access \"raed\" is neither",
		"topic\n":                        "line 1: ",
		"user\n":                         "line 1: ",
		"acl a/b\n":                      "begins neither with user",
		"topic a/#/b\n":                  "line 1: ",
		"topic read a+\n":                "line 1: ",
		"topic\tread a\n":                "line 1: ",
		"topic " + strings.Repeat("x", maxUserLine) + "\n": "line 1: the line is over",
	} {
		if _, refused := (ImportACL{Role: "r"}).Read(strings.NewReader(text)); len(refused) != 1 || !strings.Contains(refused[0].Error(), want) {
			t.Errorf("%.40q: %.200v", text, refused)
		}
	}
	rules, refused := ImportACL{Role: "r"}.Read(strings.NewReader("acl a\ntopic a\ntopic raed a\n"))
	if len(refused) != 2 || refused[0].Line != 1 || refused[1].Line != 3 || rules != nil {
		t.Errorf("two lines are wrong: %v, rules %v", refused, rules)
	}
}

// Whatever is read makes rules that compile, and nobody but those it names gets
// anything.
func FuzzImportACL(f *testing.F) {
	f.Add(aclText)
	f.Add("user a\ntopic deny $x/%c\npattern deny %c{}/#\npattern read $x/%u/{id}\n")
	f.Fuzz(func(t *testing.T, text string) {
		list, refused := ImportACL{Role: "mosquitto"}.Read(strings.NewReader(text))
		if len(refused) > 0 {
			return
		}
		var rules []Rule
		for _, r := range list {
			if len(r.Rule.Topics) > 0 {
				rules = append(rules, r.Rule)
			}
		}
		compiled, err := Compile(rules)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		for _, id := range []Identity{{Name: "link:cloud"}, {Name: "device:boiler"}, {Name: "gateway"}, {Name: "nobody-there"}} {
			if compiled.Speaks(id) && !strings.Contains(text, id.Name) {
				t.Errorf("%q gives %s something", text, id.Name)
			}
		}
	})
}
