package broker

import (
	"slices"
	"time"

	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/storequeue"
)

// setMessage fills m from a PUBLISH. m shares p's bytes.
func setMessage(m *storequeue.Message, p *mqtt.Publish, topic, from string) {
	marks := m.For[:0]
	*m = storequeue.Message{
		Time: time.Now(), Topic: topic, Payload: p.Payload, QoS: p.QoS, Retain: p.Retain, From: from,
		ContentType: p.ContentType, ResponseTopic: p.ResponseTopic, CorrelationData: p.CorrelationData, Text: p.Text,
		For: marks,
	}
	if p.HasMessageExpiry {
		m.Expires = m.Time.Add(time.Duration(p.MessageExpiry) * time.Second)
	}
	for _, u := range p.UserProperties {
		m.Properties = append(m.Properties, storequeue.Property(u))
	}
}

// setPublish fills p from a message, as it stands at now. p shares m's bytes.
// Its topic keeps its capacity from call to call.
func setPublish(p *mqtt.Publish, m *storequeue.Message, now time.Time) {
	*p = mqtt.Publish{Topic: append(p.Topic[:0], m.Topic...), Payload: m.Payload}
	p.ContentType, p.ResponseTopic, p.CorrelationData, p.Text = m.ContentType, m.ResponseTopic, m.CorrelationData, m.Text
	if !m.Expires.IsZero() { // [MQTT-3.3.2-6]
		left := max(m.Expires.Sub(now)+time.Second-1, 0)
		p.MessageExpiry, p.HasMessageExpiry = uint32(min(left/time.Second, 1<<32-1)), true
	}
	for _, u := range m.Properties {
		p.UserProperties = append(p.UserProperties, mqtt.UserProperty(u))
	}
}

func expired(m *storequeue.Message, now time.Time) bool {
	return !m.Expires.IsZero() && !now.Before(m.Expires)
}

// clone is a message that shares no bytes with m.
func clone(m *storequeue.Message) *storequeue.Message {
	c := *m
	c.Payload = slices.Clone(m.Payload)
	c.CorrelationData = slices.Clone(m.CorrelationData)
	c.Properties = slices.Clone(m.Properties)
	c.For, c.Note = nil, nil
	return &c
}
