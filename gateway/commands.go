package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/config"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/southbound"
	"github.com/headgate-io/headgate/storequeue"
)

// A command is a message to hg/{gateway}/{device}/cmd/write. It takes this way:
//
//	broker       may its sender publish there? on disk, for the reader "commands"
//	commands     whose is it? was it answered before? is it too late?
//	             answer: accepted; on disk: it is being sent
//	Device.Write limits, interlock, time; Session.Write; read back
//	commands     on disk: how it ended; audit record; answer; done with the message
//
// A kill at any moment leaves the message in the queue, and what is on disk says
// how far it had come: a command that was not sent is taken anew, if there is time
// left; one that may have been sent is answered unknown_outcome and never sent
// again; one that ended is answered as before.
const (
	commandReader  = "commands"
	commandSuffix  = "/cmd/write"
	commandWait    = 30 * time.Second // how long a local command holds that names no end
	maxWaiting     = 16               // commands that wait for one device; more are rejected
	maxCommandID   = 128
	maxCommandSize = 64 << 10
)

// commands takes commands out of the queue and gives each to its device.
type commands struct {
	g       *Gateway
	reader  *storequeue.Reader
	memory  memory
	devices map[string]*commandDevice // by topic
	counts  resultCounts

	mu   sync.Mutex      // covers what follows
	done map[uint64]bool // messages: false until they are
}

// A commandDevice writes what is asked of one device, one command after the
// other.
type commandDevice struct {
	*southbound.Device
	identity access.Identity
	waiting  chan storequeue.Message
}

func (g *Gateway) openCommands() error {
	if len(g.devices) == 0 {
		return nil
	}
	reader, err := g.queue.Reader(commandReader)
	if err != nil {
		return setup(err)
	}
	c := &commands{g: g, reader: reader, devices: map[string]*commandDevice{}, done: map[uint64]bool{}}
	if err := c.memory.open(g.queue); err != nil {
		return setup(err)
	}
	for _, d := range g.devices {
		c.devices[deviceHome(g.cfg, d.ID)+commandSuffix] = &commandDevice{
			Device: d, identity: access.Identity{Name: "device:" + d.ID}, waiting: make(chan storequeue.Message, maxWaiting),
		}
	}
	g.commands = c
	return nil
}

func deviceHome(cfg *config.Config, id string) string { return "hg/" + cfg.Gateway.ID + "/" + id }

// mark keeps a message for the devices if it is a command. It is called for
// every message.
func (c *commands) mark(m *storequeue.Message) bool {
	if c == nil || !strings.HasSuffix(m.Topic, commandSuffix) || c.devices[m.Topic] == nil {
		return false
	}
	m.For = append(m.For, storequeue.Mark{Reader: c.reader.ID(), QoS: m.QoS})
	return true
}

// run gives commands to their devices until ctx ends. Who is busy does not hold
// up the others.
func (c *commands) run(ctx context.Context) error {
	var workers sync.WaitGroup
	defer workers.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, d := range c.devices {
		workers.Go(func() { c.work(ctx, d) })
	}
	for after := c.reader.Acked(); ; {
		msgs, err := c.reader.Next(ctx, after, maxWaiting)
		if ctx.Err() != nil || errors.Is(err, storequeue.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read commands from the queue: %w", err)
		}
		for i := range msgs {
			after = msgs[i].Seq
			c.begin(after)
			c.pass(ctx, &msgs[i])
		}
	}
}

// pass gives a message to its device, or ends it here.
func (c *commands) pass(ctx context.Context, m *storequeue.Message) {
	d := c.devices[m.Topic]
	if d == nil { // it was configured when the message came
		c.end(m.Seq)
		return
	}
	select {
	case d.waiting <- *m:
	default:
		r := &received{device: d, message: m}
		decoded := r.decode() == nil
		if e := c.memory.find(r.key()); decoded && e != nil { // it may have ended before a restart
			c.again(ctx, r, e)
			return
		}
		c.finish(ctx, r, &southbound.Outcome{
			Result: southbound.Rejected, Reason: fmt.Sprintf("%d commands wait for this device already; send it again later, with another id", maxWaiting),
		}, decoded)
	}
}

func (c *commands) work(ctx context.Context, d *commandDevice) {
	for {
		select {
		case m := <-d.waiting:
			c.take(ctx, &received{device: d, message: &m})
		case <-ctx.Done():
			return
		}
	}
}

func (c *commands) begin(seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done[seq] = false
}

// end notes that a message is done with, and acknowledges as far as all are.
func (c *commands) end(seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done[seq] = true
	var upto uint64
	first := uint64(1<<64 - 1)
	for s, done := range c.done {
		if !done {
			first = min(first, s)
		}
	}
	for s := range c.done {
		if s < first {
			upto = max(upto, s)
			delete(c.done, s)
		}
	}
	if upto > 0 {
		c.reader.Ack(upto)
	}
}

// A received command is a message and what it asks for.
type received struct {
	device  *commandDevice
	message *storequeue.Message

	ask struct {
		ID       string          `json:"id"`
		Tag      string          `json:"tag"`
		Value    json.RawMessage `json:"value"`
		Verify   bool            `json:"verify"`
		NotAfter *time.Time      `json:"not_after"`
	}
	value    any
	deadline time.Time
}

// decode reads the payload. What it read of it before an error can be answered.
func (r *received) decode() error {
	m := r.message
	if len(m.Payload) > maxCommandSize {
		return fmt.Errorf("a command of %d bytes; the most is %d", len(m.Payload), maxCommandSize)
	}
	d := json.NewDecoder(bytes.NewReader(m.Payload))
	d.DisallowUnknownFields()
	if err := d.Decode(&r.ask); err != nil {
		return fmt.Errorf(`not a command: %w; write {"id":"…","tag":"setpoint","value":42.0}`, err)
	}
	if d.More() {
		return errors.New("more than one command in a message; send them one by one")
	}
	switch id := r.ask.ID; {
	case id == "" || len(id) > maxCommandID:
		return fmt.Errorf("a command needs an id of its own, 1 to %d bytes, by which a repetition is known", maxCommandID)
	case r.ask.Tag == "":
		return errors.New("it names no tag")
	}
	var err error
	if r.value, err = decodeValue(r.ask.Value); err != nil {
		return err
	}
	r.deadline = m.Time.Add(commandWait)
	if strings.HasPrefix(m.From, "link:") && r.ask.NotAfter == nil && m.Expires.IsZero() {
		return errors.New("it came over a link, where it may have waited for any time, and names no end; give it not_after or a message expiry")
	}
	if r.ask.NotAfter != nil || !m.Expires.IsZero() {
		r.deadline = m.Expires
		if at := r.ask.NotAfter; at != nil && (m.Expires.IsZero() || at.Before(m.Expires)) {
			r.deadline = *at
		}
	}
	if r.deadline.Sub(m.Time) > rememberFor {
		return fmt.Errorf("its end is more than %v away, and for longer no id is remembered", rememberFor)
	}
	return nil
}

// decodeValue reads a scalar; a whole number stays whole.
func decodeValue(raw json.RawMessage) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, errors.New("it has no value")
	}
	switch v := v.(type) {
	case bool, string:
		return v, nil
	case json.Number:
		var i int64
		var u uint64
		var f float64
		switch {
		case json.Unmarshal(raw, &i) == nil:
			return i, nil
		case json.Unmarshal(raw, &u) == nil:
			return u, nil
		case json.Unmarshal(raw, &f) == nil:
			return f, nil
		}
	}
	return nil, fmt.Errorf("%.64s is no value; write true, a number, or text", raw)
}

func (r *received) key() string {
	return r.message.From + "\x00" + r.device.ID + "\x00" + r.ask.ID
}

// sum stands for what it asks for.
func (r *received) sum() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %s", r.ask.Tag, r.ask.Value))
	return hex.EncodeToString(sum[:16])
}

// take does one command, or answers it as it was answered before.
func (c *commands) take(ctx context.Context, r *received) {
	if err := r.decode(); err != nil { // it will be no better when it comes again
		c.finish(ctx, r, &southbound.Outcome{Result: southbound.Rejected, Reason: err.Error()}, false)
		return
	}
	if e := c.memory.find(r.key()); e != nil {
		c.again(ctx, r, e)
		return
	}
	if err := c.refuses(r); err != nil {
		c.finish(ctx, r, &southbound.Outcome{Result: southbound.Rejected, Reason: err.Error()}, true)
		return
	}
	if !time.Now().Before(r.deadline) {
		c.finish(ctx, r, &southbound.Outcome{Result: southbound.Expired, Reason: southbound.ErrExpired.Error()}, true)
		return
	}
	c.answer(ctx, r, &southbound.Outcome{Result: southbound.Accepted})
	o := r.device.Write(ctx, southbound.Command{
		ID: r.ask.ID, Tag: r.ask.Tag, Value: r.value, Deadline: r.deadline, Verify: r.ask.Verify,
	}, func(old any) error {
		return c.memory.put(c.g.queue, r.key(), r.remember(&southbound.Outcome{Old: old}))
	})
	if ctx.Err() != nil && o.Result != southbound.Done {
		return // the gateway ends in the middle of it: the next start answers
	}
	c.finish(ctx, r, &o, true)
}

// refuses says what is wrong with a command before its device is asked.
func (c *commands) refuses(r *received) error {
	m := r.message
	switch {
	case m.Retain:
		return errors.New("retained commands are not taken: they would be repeated to whoever comes; send it with retain off")
	case !c.g.gate.Allow(c.g.gate.Lookup(m.From), access.Publish, m.Topic):
		return errors.New("no rule allows its sender to write to the device any more")
	case m.ResponseTopic == "":
		return nil
	}
	return c.mayAnswer(r.device, m.ResponseTopic)
}

// mayAnswer says whether a device may answer under a topic that somebody else
// chose: below its own cmd/answer, or where a rule lets it publish. Its
// telemetry is not to be written by who sends it commands.
func (c *commands) mayAnswer(d *commandDevice, topic string) error {
	home, own := "hg/"+c.g.cfg.Gateway.ID+"/", answerTopic(c.g.cfg, d.ID)
	inside := topic == own || strings.HasPrefix(topic, own+"/")
	switch {
	case mqtt.CheckTopic(topic) != nil:
		return fmt.Errorf("response topic %.200q is no topic", topic)
	case !inside && strings.HasPrefix(topic, home):
		return fmt.Errorf("response topic %.200q: below %s answers go to %s/… only", topic, home, own)
	case !c.g.gate.Allow(d.identity, access.Publish, topic):
		return fmt.Errorf("response topic %.200q: no rule lets %s publish there; use %s/…, which needs none", topic, d.identity.Name, own)
	}
	return nil
}

func answerTopic(cfg *config.Config, device string) string {
	return deviceHome(cfg, device) + "/cmd/answer"
}

// again answers a command whose id is known: as it was answered before, if it is
// the same. One that was being sent when the gateway was killed has ended now.
func (c *commands) again(ctx context.Context, r *received, e *remembered) {
	same := e.Seq == r.message.Seq
	switch {
	case !same && e.Sum != r.sum():
		c.answer(ctx, r, &southbound.Outcome{Result: southbound.Rejected, Reason: "its id was another command's: give each one its own"})
		c.end(r.message.Seq)
	case e.Result == "" && same:
		c.finish(ctx, r, &southbound.Outcome{
			Result: southbound.Unknown, Reason: "the gateway was stopped after it was sent and before it was answered", Old: e.Old,
		}, true)
	case e.Result == "": // its first message is answered
		c.end(r.message.Seq)
	case same && !e.Told:
		c.tell(ctx, r, e.outcome())
	default:
		if !same {
			c.answer(ctx, r, e.outcome())
		}
		c.end(r.message.Seq)
	}
}
