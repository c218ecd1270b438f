package access

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestLockout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Config{}, openUsers(t, "anna", "berta"), nil, nil)
		try := func(c Credentials) error {
			_, err := g.Authenticate(t.Context(), c)
			return err
		}
		expect := func(what string, got, want error) {
			t.Helper()
			if !errors.Is(got, want) {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
		}
		fail := func(c Credentials, times int) {
			t.Helper()
			for range times {
				expect("wrong password", try(c), ErrBadCredentials)
			}
		}
		elsewhere := login("anna", right)
		elsewhere.Remote = netip.MustParseAddr("192.0.2.8")
		fail(login("anna", wrong), 4)
		time.Sleep(time.Minute) // the window is over
		fail(login("anna", wrong), 4)
		expect("right password in between", try(login("anna", right)), nil)
		fail(login("anna", wrong), 5)
		expect("right password in the lock", try(login("anna", right)), ErrLocked)
		expect("another user", try(login("berta", right)), nil)
		expect("another address", try(elsewhere), nil)
		expect("a certificate", try(Credentials{Remote: home, Certificate: certificate("", "urn:headgate:client:anna")}), nil)
		for lock := 5 * time.Minute; lock <= 2*time.Hour; lock *= 2 {
			time.Sleep(min(lock, time.Hour) - time.Millisecond)
			expect("just before the end", try(login("anna", right)), ErrLocked)
			time.Sleep(time.Millisecond)
			fail(login("anna", wrong), 5)
		}
		time.Sleep(time.Hour)
		expect("after the lock", try(login("anna", right)), nil)
		fail(login("anna", wrong), 5)
		time.Sleep(5 * time.Minute)
		expect("a success makes locks short again", try(login("anna", right)), nil)
	})
}

func TestLockoutOfAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Config{Lockout: Lockout{Failures: 2, Window: time.Second, Duration: time.Minute}}, openUsers(t, "anna"), nil, nil)
		from := func(c Credentials, address string) Credentials {
			c.Remote = netip.MustParseAddr(address)
			return c
		}
		for i := range 8 {
			// A new address in the same /64 and a new name each time.
			c := from(login(fmt.Sprint("user-", i), wrong), fmt.Sprintf("2001:db8::%d:1", i))
			_, err := g.Authenticate(t.Context(), c)
			if !errors.Is(err, ErrBadCredentials) {
				t.Fatalf("failure %d: %v", i, err)
			}
			if lock := new(LockoutError); errors.As(err, &lock) != (i == 7) || i == 7 && !lock.Address {
				t.Errorf("failure %d: %+v", i, lock)
			}
		}
		for address, want := range map[string]error{"2001:db8::9": ErrLocked, "2001:db8:0:1::9": nil, "192.0.2.1": nil} {
			if _, err := g.Authenticate(t.Context(), from(login("anna", right), address)); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", address, err, want)
			}
		}
		time.Sleep(time.Minute)
		if _, err := g.Authenticate(t.Context(), from(login("anna", right), "2001:db8::9")); err != nil {
			t.Errorf("after the lock: %v", err)
		}
	})
}

func TestOrigin(t *testing.T) {
	for a, want := range map[string]string{"::ffff:192.0.2.1": "192.0.2.1", "fe80::1%eth0": "fe80::", "2001:db8:1:2:3::4": "2001:db8:1:2::"} {
		if got := origin(netip.MustParseAddr(a)); got.String() != want {
			t.Errorf("origin(%s) = %s", a, got)
		}
	}
	if origin(netip.Addr{}).IsValid() {
		t.Error("no address became one")
	}
}

func TestSuspectsAreBounded(t *testing.T) {
	l := newLockouts()
	limit := Lockout{Failures: 2}.withDefaults()
	victim := netip.MustParseAddr("198.51.100.1")
	l.failed(newPair(victim, "", "locked"), limit)
	l.failed(newPair(victim, "", "locked"), limit)
	base := netip.MustParseAddr("10.0.0.0").As4()
	names := suspectsMax + 100
	if os.Getenv("PROVE") != "" {
		names = 1_000_000
	}
	for i := range names {
		base[1], base[2], base[3] = byte(i>>16), byte(i>>8), byte(i)
		l.failed(newPair(netip.AddrFrom4(base), "", strings.Repeat("x", i%300)), limit)
	}
	if len(l.pairs) > suspectsMax || len(l.addresses) > suspectsMax {
		t.Errorf("%d pairs, %d addresses", len(l.pairs), len(l.addresses))
	}
	if !l.locked(newPair(victim, "", "locked")) {
		t.Error("a flood of names opened a lock")
	}
}

func TestLocksAreForgottenLast(t *testing.T) {
	now := time.Now()
	for range 20 { // maps have no order
		s := suspects[string]{
			"locked": {until: now.Add(time.Minute)},
			"older":  {failures: []time.Time{now.Add(-2)}},
			"newer":  {failures: []time.Time{now.Add(-1)}},
		}
		for _, next := range []string{"older", "newer", "locked"} {
			if s.makeRoom(now); s[next] != nil {
				t.Fatalf("%s was not forgotten next", next)
			}
		}
	}
}

// Guesses that were waiting when the lock fell are not heard.
func TestWaitingGuessesMeetTheLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Config{Lockout: Lockout{Failures: 3}}, openUsers(t, "anna"), nil, nil)
		takeAllTurns(g.users)
		results := make(chan error, 50)
		for range cap(results) {
			go func() { // ends when its turn has come
				_, err := g.Authenticate(t.Context(), login("anna", wrong))
				results <- err
			}()
		}
		synctest.Wait()
		<-g.users.checks.running
		heard := 0
		for range cap(results) {
			if err := <-results; errors.Is(err, ErrBadCredentials) {
				heard++
			} else if !errors.Is(err, ErrLocked) {
				t.Error(err)
			}
		}
		if heard != 3 {
			t.Errorf("%d guesses were heard", heard)
		}
	})
}

// A stranger's wrong passwords do not lock a client out that has a certificate
// besides; its own do.
func TestLockoutBehindCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Config{}, openUsers(t, "anna"), nil, nil)
		try := func(password Secret, certified bool) error {
			c := login("anna", password)
			if certified {
				c.Certificate = certificate("", "urn:headgate:client:press-1")
			}
			_, err := g.Authenticate(t.Context(), c)
			return err
		}
		var locks []LockoutError
		for range 20 {
			var lock *LockoutError
			if errors.As(try(wrong, false), &lock) {
				locks = append(locks, LockoutError{User: lock.User, For: lock.For, Address: lock.Address})
			}
		}
		if len(locks) != 1 || locks[0] != (LockoutError{User: "anna", For: 5 * time.Minute}) {
			t.Errorf("one lockout begins: %+v", locks)
		}
		if err := try(right, false); !errors.Is(err, ErrLocked) {
			t.Errorf("without a certificate: %v", err)
		}
		if err := try(right, true); err != nil {
			t.Errorf("with a certificate: %v", err)
		}
		for range 5 {
			_ = try(wrong, true)
		}
		if err := try(right, true); !errors.Is(err, ErrLocked) {
			t.Errorf("with a certificate and too many wrong passwords: %v", err)
		}
	})
}

// Who guesses gets one core and half of the places to wait, whatever its number
// of connections; others are heard meanwhile.
func TestGuessesLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Config{Lockout: Lockout{Failures: 50}}, openUsers(t, "anna", "berta"), nil, nil)
		if _, err := g.Authenticate(t.Context(), login("anna", wrong)); !errors.Is(err, ErrBadCredentials) {
			t.Fatal(err)
		}
		g.users.checks.suspect <- struct{}{} // a guess is being looked at
		ctx, cancel := context.WithCancel(t.Context())
		results := make(chan error, checksWaiting)
		for range cap(results) {
			go func() { // ends with ctx
				_, err := g.Authenticate(ctx, login("anna", wrong))
				results <- err
			}()
		}
		synctest.Wait()
		if n := len(results); n != checksWaiting/2 {
			t.Errorf("%d of %d guesses were turned away", n, checksWaiting)
		}
		other := login("berta", right)
		other.Remote = netip.MustParseAddr("192.0.2.99")
		if _, err := g.Authenticate(t.Context(), other); err != nil {
			t.Errorf("somebody else: %v", err)
		}
		cancel()
		for range cap(results) {
			if err := <-results; !errors.Is(err, ErrBusy) && !errors.Is(err, context.Canceled) {
				t.Errorf("a guess: %v", err)
			}
		}
		<-g.users.checks.suspect
		time.Sleep(time.Minute + 1)
		if (&attempt{gate: g, who: newPair(login("anna", wrong).Remote, "", "anna"), limit: Lockout{}.withDefaults()}).suspected() {
			t.Error("suspected for longer than the window")
		}
		if n := len(g.users.checks.suspects); n != 0 {
			t.Errorf("%d places are not given back", n)
		}
	})
}

// Behind each guess comes a pause, so that guessing takes a fifth of a core,
// also when they were all sent before the first was found wrong.
func TestGuessesPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChecks()
		var wrong atomic.Bool
		began := time.Now()
		var all sync.WaitGroup
		for range cap(c.running) + 4 {
			all.Go(func() {
				release, err := c.begin(t.Context(), wrong.Load)
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(20 * time.Millisecond) // the check
				wrong.Store(true)
				release()
			})
		}
		all.Wait()
		if took := time.Since(began); took != 340*time.Millisecond {
			t.Errorf("four guesses behind the first took %v", took)
		}
		time.Sleep(time.Second)
		if len(c.suspect) != 0 || len(c.suspects) != 0 || len(c.running) != 0 {
			t.Error("a place is not given back")
		}
	})
}
