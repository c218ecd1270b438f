package northbound

import (
	"fmt"
	"reflect"
	"testing"
)

type audited struct {
	topic     string
	seq, prev uint64
	replay    bool
}

// Each case is what arrives: topic, sequence, the one before it.
func TestAudit(t *testing.T) {
	for name, tt := range map[string]struct {
		came []audited
		want Finding
	}{
		"all is well": {
			[]audited{{"a", 3, 0, false}, {"a", 5, 3, false}, {"b", 9, 5, false}},
			Finding{Messages: 3, First: 3, Last: 9},
		},
		"begins in the middle": {
			[]audited{{"a", 5, 3, false}, {"a", 6, 5, false}},
			Finding{Messages: 2, First: 5, Last: 6},
		},
		"repeats after a reconnect": {
			[]audited{{"a", 1, 0, false}, {"a", 2, 1, false}, {"a", 1, 0, false}, {"a", 2, 1, false}, {"a", 3, 2, false}},
			Finding{Messages: 5, First: 1, Last: 3, Repeats: 2},
		},
		"one is missing": {
			[]audited{{"a", 1, 0, false}, {"a", 4, 2, false}, {"a", 5, 4, false}},
			Finding{Messages: 3, First: 1, Last: 5, Missing: 1, Ranges: []Range{{2, 2}}},
		},
		"neighbours are missing": {
			[]audited{{"a", 1, 0, false}, {"b", 5, 2, false}, {"a", 6, 3, false}, {"a", 7, 4, false}},
			Finding{Messages: 4, First: 1, Last: 7, Missing: 3, Ranges: []Range{{2, 4}}},
		},
		"late is not missing, it is out of order": {
			[]audited{{"a", 1, 0, false}, {"a", 3, 2, false}, {"a", 2, 1, false}},
			Finding{Messages: 3, First: 1, Last: 3, Disordered: 1},
		},
		"topics have no order among each other": {
			[]audited{{"a", 1, 0, false}, {"alarm", 3, 0, false}, {"a", 2, 1, false}},
			Finding{Messages: 3, First: 1, Last: 3},
		},
		"replayed and says so": {
			[]audited{{"a", 1, 0, false}, {"a", 9, 2, false}, {"a", 2, 1, true}},
			Finding{Messages: 3, First: 1, Last: 9, Replayed: 1},
		},
		"replayed is a stream with an order of its own": {
			[]audited{{"a", 9, 4, false}, {"a", 2, 1, true}, {"a", 1, 0, true}, {"a", 3, 2, true}, {"a", 4, 3, true}},
			Finding{Messages: 5, First: 1, Last: 9, Replayed: 4, Disordered: 1},
		},
		"another chunk": {
			[]audited{{"a", auditChunk - 1, 0, false}, {"a", auditChunk, auditChunk - 1, false}, {"a", 3 * auditChunk, auditChunk, false}},
			Finding{Messages: 3, First: auditChunk - 1, Last: 3 * auditChunk},
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := NewAudit()
			for _, m := range tt.came {
				a.Hear(m.topic, fmt.Sprintf("press-3/77/%d", m.seq), fmt.Sprint(m.prev), m.replay)
			}
			tt.want.Log = "press-3/77"
			if got := a.Findings(); len(got) != 1 || !reflect.DeepEqual(got[0], tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestAuditOfSeveralLogs(t *testing.T) {
	a := NewAudit()
	for _, id := range []string{"", "x", "/1", "gw/1/0", "gw/1/-3", "gw/1/1x"} {
		a.Hear("t", id, "", false)
	}
	if a.Unnamed() != 6 || len(a.Findings()) != 0 {
		t.Errorf("%d unnamed, %v", a.Unnamed(), a.Findings())
	}
	a.Hear("t", "gw/2/1", "nonsense", false)
	a.Hear("t", "gw/1/1", "7", false) // it cannot follow a later one
	got := a.Findings()
	if len(got) != 2 || got[0].Log != "gw/1" || got[1].Log != "gw/2" || got[0].Missing+got[1].Missing != 0 {
		t.Errorf("%+v", got)
	}
}

// Whoever sends nonsense to the cloud does not fill the memory of who audits.
func TestAuditIsBounded(t *testing.T) {
	a := NewAudit()
	a.room = 20
	for n := range uint64(30) {
		a.Hear("t", fmt.Sprintf("gw/1/%d", (n+1)*auditChunk), "", false)
	}
	if got := a.Findings()[0]; got.Unjudged != 10 || a.room != 0 {
		t.Errorf("room for %d, %+v", a.room, got)
	}
	for n := range 2 * auditLogs {
		a.Hear("t", fmt.Sprintf("gw/%d/1", n), "", false)
	}
	if len(a.logs) > auditLogs {
		t.Errorf("%d logs", len(a.logs))
	}
}
