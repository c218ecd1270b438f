package gateway_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
)

// Killed after the request went out and before its end was known, the gateway
// says so at the next start and never writes again. One that was done is
// answered as before.
func TestCommandAndKill(t *testing.T) {
	b := newBoiler(t)
	s := b.site(t, newCloud(t, ""), "allow")
	g := startGateway(t, s.config)
	a := s.asker(t, "asks")
	s.waitDevice(t)
	a.send(t, `{"id":"done","tag":"setpoint","value":60}`)
	a.end(t, "done")
	b.mu.Lock()
	b.hold = make(chan struct{})
	b.mu.Unlock()
	a.send(t, `{"id":"killed","tag":"setpoint","value":61}`)
	<-b.held
	g.kill()
	close(b.hold)
	b.mu.Lock()
	b.hold = nil
	b.mu.Unlock()
	a.Disconnect()

	startGateway(t, s.config)
	a = s.asker(t, "asks")
	r, _ := a.end(t, "killed")
	if r.State != "unknown_outcome" {
		t.Errorf("after the kill: %+v", r)
	}
	s.waitDevice(t)
	for id, want := range map[string]string{"killed": "unknown_outcome", "done": "done"} {
		value := map[string]int{"killed": 61, "done": 60}[id]
		a.send(t, fmt.Sprintf(`{"id":%q,"tag":"setpoint","value":%d}`, id, value))
		if r, _ := a.end(t, id); r.State != want {
			t.Errorf("%s again: %+v", id, r)
		}
		if n := b.count(uint16(10 * value)); n != 1 {
			t.Errorf("%s was written %d times", id, n)
		}
	}
}

// Whenever the gateway is killed, each command that was acknowledged is answered
// in the end, none is done twice, and what is answered is what happened.
func TestCommandsAndRandomKills(t *testing.T) {
	b := newBoiler(t)
	s := b.site(t, newCloud(t, ""), "allow")
	s.edit(t, "min: 50, max: 90, step: 0.5", "min: 0, max: 3000")
	random := rand.New(rand.NewPCG(7, 7))
	results := map[string]string{}
	sent := 0
	for range 8 {
		g := startGateway(t, s.config)
		a := s.asker(t, "asks")
		s.waitDevice(t)
		kill := time.NewTimer(time.Duration(random.IntN(300)) * time.Millisecond)
		for alive := true; alive; {
			id := fmt.Sprint(sent)
			m := client.Message{Topic: "hg/site-1/boiler/cmd/write", Payload: fmt.Appendf(nil, `{"id":%q,"tag":"setpoint","value":%d}`, id, sent), QoS: 1}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if err := a.Publish(ctx, m); err == nil {
				results[id] = ""
				sent++
			}
			cancel()
			select {
			case <-kill.C:
				g.kill()
				alive = false
			case r := <-a.answers:
				note(t, results, r)
			}
		}
		<-a.Done()
		for len(a.answers) > 0 {
			note(t, results, <-a.answers)
		}
	}
	startGateway(t, s.config)
	s.asker(t, "asks").awaitAll(t, results)
	states := map[string]int{}
	for id, state := range results {
		var value int
		fmt.Sscan(id, &value)
		n := b.count(uint16(10 * value))
		states[state]++
		if n > 1 || state == "done" && n != 1 || (state == "rejected" || state == "expired") && n != 0 {
			t.Errorf("command %s was answered %s and written %d times", id, state, n)
		}
	}
	t.Logf("%d commands: %v", len(results), states)
	if states["done"] < 5 {
		t.Errorf("only %v", states)
	}
}

// awaitAll returns once every command has an end.
func (a *asker) awaitAll(t *testing.T, results map[string]string) {
	t.Helper()
	for {
		open := 0
		for _, state := range results {
			if state == "" {
				open++
			}
		}
		if open == 0 {
			return
		}
		select {
		case r := <-a.answers:
			note(t, results, r)
		case <-time.After(20 * time.Second):
			t.Fatalf("%d of %d commands are not answered: %v", open, len(results), results)
		}
	}
}

// note keeps how a command ended; it does not end in two ways.
func note(t *testing.T, results map[string]string, r reply) {
	t.Helper()
	before, ours := results[r.ID]
	switch {
	case r.State == "accepted" || !ours && r.ID == "":
	case before != "" && before != r.State:
		t.Errorf("command %s was answered %s and then %s", r.ID, before, r.State)
	default:
		results[r.ID] = r.State
	}
}
