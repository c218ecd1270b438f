package northbound

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/headgate-io/headgate/storequeue"
)

// An Envelope carries with a payload what MQTT 3.1.1 has no properties for, as
// a JSON object. A payload that is JSON stands in it as a value; any other as
// Base64.
type Envelope struct {
	ID      string          `json:"hg-id"`
	Prev    uint64          `json:"hg-prev"`
	Replay  int             `json:"hg-replay,omitempty"`
	Via     []string        `json:"hg-via,omitempty"` // the hg-ids that other gateways gave, the last one first
	Payload json.RawMessage `json:"payload,omitempty"`
	Base64  []byte          `json:"base64,omitempty"`
}

// Unwrap opens an envelope, or says that this is none.
func Unwrap(payload []byte) (e Envelope, body []byte, ok bool) {
	if len(payload) == 0 || payload[0] != '{' || json.Unmarshal(payload, &e) != nil || e.ID == "" {
		return Envelope{}, payload, false
	}
	if e.Payload != nil {
		return e, e.Payload, true
	}
	return e, e.Base64, true
}

// wrap puts m's payload and identity into an envelope. A message that only
// clears what is retained stays empty.
func (l *Link) wrap(p *publication, m *storequeue.Message, replay bool) error {
	if !l.cfg.Enveloped || len(p.body) == 0 && p.retain {
		return nil
	}
	e := Envelope{ID: m.Origin}
	if e.ID == "" {
		e.ID, e.Prev = l.idPrefix+strconv.FormatUint(m.Seq, 10), m.Prev
	}
	if replay {
		e.Replay = 1
	}
	for _, u := range m.Properties {
		if u.Key == propID && !strings.HasPrefix(u.Value, l.ownPrefix) {
			e.Via = append(e.Via, u.Value)
		}
	}
	if json.Valid(p.body) {
		e.Payload = p.body
	} else {
		e.Base64 = p.body
	}
	var err error
	p.body, err = json.Marshal(e)
	return err
}

// properties are what the envelope says, as MQTT 5 says it.
func (e *Envelope) properties() []storequeue.Property {
	all := []storequeue.Property{{Key: propID, Value: e.ID}}
	for _, id := range e.Via {
		all = append(all, storequeue.Property{Key: propID, Value: id})
	}
	return all
}
