package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/headgate-io/headgate/gateway/client"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/southbound/modbus"
	"github.com/headgate-io/headgate/southbound/modbus/simulator"
)

// A writable boiler: what was written to it, and who waits before an answer.
type boiler struct {
	*simulator.Simulator

	mu     sync.Mutex // covers what follows
	writes []uint16   // values at the setpoint's address
	hold   chan struct{}
	held   chan struct{} // told when a write waits for hold
}

const setpoint = 20 // its register

func newBoiler(t *testing.T) *boiler {
	t.Helper()
	b := &boiler{held: make(chan struct{}, 1)}
	sim, err := simulator.Listen("127.0.0.1:0", simulator.Config{Wrote: b.wrote})
	if err != nil {
		t.Fatal(err)
	}
	b.Simulator = sim
	t.Cleanup(func() { sim.Close() })
	return b
}

func (b *boiler) wrote(_ byte, _ modbus.Table, address uint16, values []uint16) {
	b.mu.Lock()
	hold := b.hold
	if address == setpoint {
		b.writes = append(b.writes, values[0])
	}
	b.mu.Unlock()
	if hold != nil {
		b.held <- struct{}{}
		<-hold
	}
}

func (b *boiler) count(value uint16) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, v := range b.writes {
		if v == value {
			n++
		}
	}
	return n
}

// site is one whose device can be written to by "local", and by the cloud.
func (b *boiler) site(t *testing.T, cloud *cloud, writes string) *site {
	t.Helper()
	s := newSite(t, cloud, fmt.Sprintf(`    receive:
      - {topics: ["sites/{gateway}/hg/{gateway}/+/cmd/write"], strip: "sites/{gateway}/"}
buses:
  line-3: {url: "%s", response_timeout: 500ms}
devices:
  - id: boiler
    adapter: modbus
    bus: line-3
    unit: 1
    writes: %s
    groups: {fast: {interval: 200ms}}
    tags:
      temp: {address: "holding:10", type: int16, scale: 0.1, unit: Cel}
      setpoint: {address: "holding:20", type: int16, scale: 0.1, unit: Cel, access: rw, min: 50, max: 90, step: 0.5}
      ro: {address: "holding:20", type: int16}
      mode: {address: "holding:40", type: uint16, labels: {0: off, 1: "on"}, access: rw}
      local: {address: "holding:41", type: bit, access: rw}
      locked: {address: "holding:42", type: uint16, access: rw, interlock: {tag: local, equals: false}}
      rare: {address: "holding:43", type: uint16, access: rw, max_rate: 1}
      pulse: {address: "holding:44", type: uint16, access: rw, verify: false}
      gone: {address: "holding:500", type: uint16, access: rw}
`, b.URL(), writes))
	s.edit(t, localRule, `- {allow: publish, who: "link:cloud", topics: ["hg/site-1/boiler/cmd/write"]}`+"\n    "+localRule)
	return s
}

// An asker sends commands and hears their answers.
type asker struct {
	*client.Client
	answers chan reply
}

type reply struct {
	Topic, Correlation string
	ID, State, Reason  string
	Value              any
}

func (s *site) asker(t testing.TB, id string) *asker {
	t.Helper()
	a := &asker{answers: make(chan reply, 100)}
	o := client.Options{Address: fmt.Sprintf("127.0.0.1:%d", s.plain), ClientID: id, SessionExpiry: 3600}
	o.OnMessage = func(m *client.Message) error {
		r := reply{Topic: m.Topic, Correlation: string(m.CorrelationData)}
		if err := json.Unmarshal(m.Payload, &r); err != nil {
			t.Errorf("%s: %v", m.Payload, err)
		}
		a.answers <- r
		return nil
	}
	a.Client = dial(t, o, "hg/site-1/boiler/cmd/answer/#")
	return a
}

func (a *asker) send(t testing.TB, payload string, change ...func(*client.Message)) {
	t.Helper()
	m := client.Message{Topic: "hg/site-1/boiler/cmd/write", Payload: []byte(payload), QoS: 1}
	for _, c := range change {
		c(&m)
	}
	if err := a.Publish(t.Context(), m); err != nil {
		t.Fatalf("publish %s: %v", payload, err)
	}
}

// end is the answer to id that says how it ended.
func (a *asker) end(t testing.TB, id string) (r reply, accepted bool) {
	t.Helper()
	for {
		select {
		case r := <-a.answers:
			if r.ID != id { // of one before, once more
				continue
			}
			if r.State != "accepted" {
				return r, accepted
			}
			accepted = true
		case <-a.Done():
			t.Fatalf("cut: %v", a.Err())
		case <-time.After(15 * time.Second):
			t.Fatalf("no answer to %s", id)
		}
	}
}

// waitState returns once the device is online.
func (s *site) waitDevice(t testing.TB) {
	t.Helper()
	online := make(chan struct{}, 10)
	c := dial(t, client.Options{Address: fmt.Sprintf("127.0.0.1:%d", s.plain), ClientID: "state", CleanStart: true, OnMessage: func(m *client.Message) error {
		if strings.Contains(string(m.Payload), `"online"`) {
			online <- struct{}{}
		}
		return nil
	}}, "hg/site-1/boiler/state")
	defer c.Disconnect()
	select {
	case <-online:
	case <-time.After(20 * time.Second):
		t.Fatal("the device is not online")
	}
}

// Each command is done, or refused for the reason that is said, and one that is
// refused changes nothing.
func TestCommands(t *testing.T) {
	b := newBoiler(t)
	s := b.site(t, newCloud(t, ""), "allow")
	g := startGateway(t, s.config)
	a := s.asker(t, "asks")
	s.waitDevice(t)
	if err := b.Set(1, modbus.Holding, 41, 1); err != nil {
		t.Fatal(err)
	}
	for i, tt := range []struct {
		ask, state, reason string
	}{
		{`"tag":"setpoint","value":71.5`, "done", ""},
		{`"tag":"mode","value":"on"`, "done", ""},
		{`"tag":"pulse","value":7`, "done", ""},
		{`"tag":"setpoint","value":49.5`, "rejected", "below min 50"},
		{`"tag":"setpoint","value":91`, "rejected", "above max 90"},
		{`"tag":"setpoint","value":70.2`, "rejected", "not a multiple of step 0.5"},
		{`"tag":"setpoint","value":70.23`, "rejected", "cannot be held by int16"},
		{`"tag":"setpoint","value":"70"`, "rejected", "no number"},
		{`"tag":"setpoint","value":{"a":1}`, "rejected", "is no value"},
		{`"tag":"setpoint","value":null`, "rejected", "is no value"},
		{`"tag":"setpoint"`, "rejected", "no value"},
		{`"tag":"mode","value":"auto"`, "rejected", "none of off, on"},
		{`"tag":"ro","value":1`, "rejected", "may not be written"},
		{`"tag":"temp","value":1`, "rejected", "may not be written"},
		{`"tag":"none","value":1`, "rejected", "may not be written"},
		{`"value":1`, "rejected", "names no tag"},
		{`"tag":"locked","value":1`, "rejected", "interlock: tag local is true, not false"},
		{`"tag":"local","value":false`, "done", ""},
		{`"tag":"locked","value":5`, "done", ""},
		{`"tag":"rare","value":1`, "done", ""},
		{`"tag":"rare","value":2`, "rejected", "max_rate"},
		{`"tag":"gone","value":2`, "rejected", "exception 2"},
		{`"tag":"setpoint","value":60,"not_after":"2020-01-01T00:00:00Z"`, "expired", "time is over"},
		{`"tag":"setpoint","value":60,"not_after":"2099-01-01T00:00:00Z"`, "rejected", "more than 24h"},
		{`"tag":"setpoint","value":60,"speed":3`, "rejected", "unknown field"},
	} {
		id := fmt.Sprint("c", i)
		a.send(t, `{"id":"`+id+`",`+tt.ask+`}`)
		r, accepted := a.end(t, id)
		if r.State != tt.state || !strings.Contains(r.Reason, tt.reason) || tt.reason == "" && r.Reason != "" {
			t.Errorf("%s: %s, %q; want %s, %q", tt.ask, r.State, r.Reason, tt.state, tt.reason)
		}
		if r.State == "done" && !accepted {
			t.Errorf("%s: done, and never accepted", tt.ask)
		}
	}
	if b.count(715) != 1 || len(b.writes) != 1 {
		t.Errorf("the setpoint was written %v, want 715 once", b.writes)
	}
	if out := s.metrics(t, g); !strings.Contains(out, `headgate_commands_total{state="done"} 6`) {
		t.Errorf("metrics do not count 6 commands done:\n%s", out)
	}
}

// What concerns the message and not what it asks for: an id of its own, not
// retained, in time, with an answer's topic that may be written.
func TestCommandMessages(t *testing.T) {
	b := newBoiler(t)
	s := b.site(t, newCloud(t, ""), "allow")
	startGateway(t, s.config)
	a := s.asker(t, "asks")
	s.waitDevice(t)
	expect := func(what, id, state, reason string) reply {
		t.Helper()
		r, _ := a.end(t, id)
		if r.State != state || !strings.Contains(r.Reason, reason) {
			t.Errorf("%s: %s, %q; want %s, %q", what, r.State, r.Reason, state, reason)
		}
		return r
	}
	for _, payload := range []string{`on`, `{"tag":"setpoint","value":60}`, `{"id":"","tag":"setpoint","value":60}`, `[]`} {
		a.send(t, payload)
		expect(payload, "", "rejected", "")
	}
	a.send(t, `{"id":"1","tag":"setpoint","value":60}`, func(m *client.Message) { m.Retain = true })
	expect("retained", "1", "rejected", "retained")

	with := func(response string) func(*client.Message) {
		return func(m *client.Message) { m.ResponseTopic, m.CorrelationData = response, []byte("c-7") }
	}
	a.send(t, `{"id":"2","tag":"setpoint","value":61}`, with("hg/site-1/boiler/cmd/answer/asks"))
	if r := expect("own response topic", "2", "done", ""); r.Topic != "hg/site-1/boiler/cmd/answer/asks" || r.Correlation != "c-7" || r.Value != 61.0 {
		t.Errorf("answered %+v", r)
	}
	for _, topic := range []string{"hg/site-1/boiler/fast", "hg/site-1/boiler/cmd/write", "plant/x"} {
		a.send(t, `{"id":"`+topic+`","tag":"setpoint","value":62}`, with(topic))
		expect(topic, topic, "rejected", "response topic")
	}

	a.send(t, `{"id":"2","tag":"setpoint","value":61}`)
	if r := expect("the same again", "2", "done", ""); r.Value != 61.0 {
		t.Errorf("answered %+v", r)
	}
	a.send(t, `{"id":"2","tag":"setpoint","value":63}`)
	expect("another with its id", "2", "rejected", "another command's")
	if len(b.writes) != 1 {
		t.Errorf("the setpoint was written %v, want 610 once", b.writes)
	}
	if err := b.Break(); err != nil {
		t.Fatal(err)
	}
	a.send(t, `{"id":"3","tag":"setpoint","value":64}`)
	expect("unreachable", "3", "rejected", "")
}

// All three locks are closed by default.
func TestCommandsNeedThreeLocks(t *testing.T) {
	b := newBoiler(t)
	s := b.site(t, newCloud(t, ""), "deny")
	startGateway(t, s.config)
	a := s.asker(t, "asks")
	s.waitDevice(t)
	a.send(t, `{"id":"1","tag":"setpoint","value":60}`)
	if r, _ := a.end(t, "1"); r.State != "rejected" || !strings.Contains(r.Reason, "may not be written") {
		t.Errorf("with writes: deny: %+v", r)
	}
	press := dial(t, client.Options{Address: fmt.Sprintf("127.0.0.1:%d", s.plain), ClientID: "press", CleanStart: true, Username: "press-1", Password: mqtt.Secret(password)})
	err := press.Publish(t.Context(), client.Message{Topic: "hg/site-1/boiler/cmd/write", Payload: []byte(`{"id":"2","tag":"setpoint","value":60}`), QoS: 1})
	if err == nil || !strings.Contains(err.Error(), "authorized") {
		t.Errorf("without a rule: %v", err)
	}
	if len(b.writes) != 0 {
		t.Errorf("written %v", b.writes)
	}
}

// A command of the cloud takes the same way; its answer and the audit record go
// back there, the command itself does not.
func TestCommandFromTheCloud(t *testing.T) {
	cloud := newCloud(t, "")
	cloud.start(t)
	b := newBoiler(t)
	s := b.site(t, cloud, "allow")
	got := make(chan string, 1000)
	far := cloud.watchAs(t, "far", func(m *client.Message) {
		if strings.Contains(m.Topic, "/cmd/") || strings.HasSuffix(m.Topic, "/audit") || strings.HasSuffix(m.Topic, "boiler/state") {
			got <- strings.TrimPrefix(m.Topic, "sites/site-1/hg/site-1/") + " " + string(m.CorrelationData) + " " + string(m.Payload)
		}
	})
	startGateway(t, s.config)
	await := func(parts ...string) {
		t.Helper()
		for deadline := time.After(20 * time.Second); ; {
			select {
			case line := <-got:
				all := true
				for _, p := range parts {
					all = all && strings.Contains(line, p)
				}
				if all {
					return
				}
				if strings.HasPrefix(line, "boiler/cmd/write ") && strings.Contains(line, "near") {
					t.Errorf("a local command left: %s", line)
				}
			case <-deadline:
				t.Fatalf("the cloud did not hear %v", parts)
			}
		}
	}
	await("boiler/state", "online")
	near := s.asker(t, "near")
	near.send(t, `{"id":"near","tag":"setpoint","value":55}`)
	near.end(t, "near")
	await("audit", `"id":"near","by":"local","tag":"setpoint","old":72,"value":55,"new":55,"state":"done"`)
	ask := func(id string, expiry uint32) {
		t.Helper()
		if err := far.Publish(t.Context(), client.Message{
			Topic: "sites/site-1/hg/site-1/boiler/cmd/write", Payload: fmt.Appendf(nil, `{"id":%q,"tag":"setpoint","value":66.5}`, id), QoS: 1,
			Properties: mqtt.Properties{ResponseTopic: "sites/site-1/hg/site-1/boiler/cmd/answer/far", CorrelationData: []byte("c1"), MessageExpiry: expiry, HasMessageExpiry: expiry > 0},
		}); err != nil {
			t.Fatal(err)
		}
	}
	ask("old", 0) // perhaps of last week
	await("boiler/cmd/answer/far c1 ", `"id":"old"`, `"state":"rejected"`, "not_after")
	ask("f1", 60)
	await("boiler/cmd/answer/far c1 ", `"state":"accepted"`)
	await("audit", `"by":"link:cloud"`, `"old":55,"value":66.5,"new":66.5,"state":"done"`)
	await("boiler/cmd/answer/far c1 ", `"state":"done","value":66.5`)
	if b.count(665) != 1 {
		t.Errorf("written %v", b.writes)
	}
}

// A client that shares no code with the gateway asks and hears.
func TestCommandByPaho(t *testing.T) {
	b := newBoiler(t)
	s := b.site(t, newCloud(t, ""), "allow")
	startGateway(t, s.config)
	s.waitDevice(t)
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.plain))
	if err != nil {
		t.Fatal(err)
	}
	answers := make(chan *paho.Publish, 10)
	c := paho.NewClient(paho.ClientConfig{Conn: conn, OnPublishReceived: []func(paho.PublishReceived) (bool, error){
		func(p paho.PublishReceived) (bool, error) { answers <- p.Packet; return true, nil },
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := c.Connect(ctx, &paho.Connect{ClientID: "paho", CleanStart: true, KeepAlive: 30}); err != nil {
		t.Fatal(err)
	}
	defer c.Disconnect(&paho.Disconnect{})
	response := "hg/site-1/boiler/cmd/answer/paho"
	if _, err := c.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: response, QoS: 1}}}); err != nil {
		t.Fatal(err)
	}
	expiry := uint32(10)
	if _, err := c.Publish(ctx, &paho.Publish{QoS: 1, Topic: "hg/site-1/boiler/cmd/write", Payload: []byte(`{"id":"p","tag":"setpoint","value":80}`),
		Properties: &paho.PublishProperties{ResponseTopic: response, CorrelationData: []byte{0, 1}, MessageExpiry: &expiry}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"state":"accepted"`, `"state":"done","value":80`} {
		select {
		case p := <-answers:
			if !strings.Contains(string(p.Payload), want) || string(p.Properties.CorrelationData) != "\x00\x01" || p.Properties.ContentType != "application/json" {
				t.Errorf("answered %s %+v, want %s", p.Payload, p.Properties, want)
			}
		case <-ctx.Done():
			t.Fatal("no answer")
		}
	}
}
