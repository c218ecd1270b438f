package access

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"
)

// helperMode as the last argument makes this test program a helper.
const helperMode = "check-passwords"

func withHelper(t *testing.T, argv ...string) *Users {
	t.Helper()
	u := openUsers(t, "anna")
	u.HashWith(argv...)
	t.Cleanup(u.Close)
	return u
}

func TestPasswordsAreCheckedElsewhere(t *testing.T) {
	u := withHelper(t, os.Args[0], helperMode)
	for range 2 {
		if _, err := u.Verify(t.Context(), "anna", wrong); !errors.Is(err, ErrBadCredentials) {
			t.Errorf("wrong password: %v", err)
		}
	}
	if _, err := u.Verify(t.Context(), "anna", right); err != nil {
		t.Error(err)
	}
	if n := len(u.helper.idle); n != 1 {
		t.Fatalf("%d helpers wait, want the one that did it all", n)
	}

	// One that died is found out, and the check is made all the same.
	u.helper.idle[0].cmd.Process.Kill()
	u.proved = newReconnects()
	if _, err := u.Verify(t.Context(), "anna", right); err != nil {
		t.Error(err)
	}
	if n := len(u.helper.idle); n != 0 {
		t.Errorf("%d helpers wait, want none: it died", n)
	}

	u.retireAll(t)
	u.proved = newReconnects()
	if _, err := u.Verify(t.Context(), "anna", right); err != nil {
		t.Error(err)
	}
	u.Close()
	if n := len(u.helper.idle); n != 0 {
		t.Errorf("%d helpers wait after Close", n)
	}
}

// retireAll is what the timers do.
func (u *Users) retireAll(t *testing.T) {
	t.Helper()
	for len(u.helper.idle) > 0 {
		w := u.helper.idle[0]
		u.helper.retire(w)
		if w.cmd.ProcessState == nil {
			t.Error("a retired helper runs")
		}
	}
}

func TestNoHelperToBeHad(t *testing.T) {
	for _, program := range []string{"/nonexistent", "/bin/false", "/bin/true"} {
		u := withHelper(t, program)
		if _, err := u.Verify(t.Context(), "anna", right); err != nil {
			t.Errorf("%s: %v", program, err)
		}
		if _, err := u.Verify(t.Context(), "anna", wrong); !errors.Is(err, ErrBadCredentials) {
			t.Errorf("%s: %v", program, err)
		}
	}
}

func TestAnswerHashesRefuses(t *testing.T) {
	for name, q := range map[string]question{
		"too dear":          {Time: maxTime + 1, Memory: minMemory, Threads: 1, Size: 32, Salt: 16},
		"too much memory":   {Time: 1, Memory: maxMemory + 1, Threads: 1, Size: 32, Salt: 16},
		"a long password":   {Time: 1, Memory: minMemory, Threads: 1, Size: 32, Salt: 16, Password: maxPasswordBytes + 1},
		"nothing behind it": {Time: 1, Memory: minMemory, Threads: 1, Size: 32, Salt: 16, Password: 1},
	} {
		b, err := binary.Append(nil, binary.BigEndian, q)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := AnswerHashes(bytes.NewReader(b), &out); err == nil || out.Len() > 0 {
			t.Errorf("%s: %v, answered %d bytes", name, err, out.Len())
		}
	}
}
