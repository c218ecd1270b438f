package mqtt

import "testing"

func TestOverlap(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"#", "a/b", true}, {"#", "$SYS/a", false}, {"+", "$SYS", false},
		{"$SYS/#", "$SYS/+", true}, {"a/#", "a", true}, {"a/#", "a/b/c", true}, {"a/+", "a/b", true}, {"a/+", "+/b", true},
		{"a/+", "a", false}, {"a/+/c", "a/#", true}, {"a/+/c", "a/b/d", false}, {"plant/#", "hg/#", false},
		{"+/b/#", "a/#", true}, {"a/b", "a", false}, {"+/+", "#", true}, {"/", "+/+", true}, {"/#", "a/#", false},
	} {
		if Overlap(tc.a, tc.b) != tc.want || Overlap(tc.b, tc.a) != tc.want {
			t.Errorf("Overlap(%q, %q) is not %v both ways", tc.a, tc.b, tc.want)
		}
	}
}

// What two filters both match, they overlap in.
func FuzzOverlap(f *testing.F) {
	f.Add("a/#", "+/b", "a/b")
	f.Fuzz(func(t *testing.T, a, b, topic string) {
		if CheckFilter(a) != nil || CheckFilter(b) != nil || CheckTopic(topic) != nil {
			return
		}
		if Match(a, topic) && Match(b, topic) && !Overlap(a, b) {
			t.Errorf("%q and %q both match %q", a, b, topic)
		}
	})
}
