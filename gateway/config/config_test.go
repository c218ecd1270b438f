package config

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/southbound/modbus"
)

// TestProgramShape compares what interface.good.yaml comes to, value by value.
func TestProgramShape(t *testing.T) {
	text, err := os.ReadFile("testdata/interface.good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := loadText("f", string(text))
	if err != nil {
		t.Fatal(err)
	}
	got.written = nil
	pub, sub := access.Publish, access.Subscribe
	scale := 0.1
	want := &Config{
		Gateway: Gateway{ID: "press-shop-3", Data: "/var/lib/headgate", Plugins: "/usr/lib/headgate/plugins"},
		Broker: Broker{
			Listeners: []Listener{
				{Address: "0.0.0.0:8883", Certificate: "/etc/headgate/pki/broker.crt", Key: "/etc/headgate/pki/broker.key",
					ClientCA: "/etc/headgate/pki/ca.crt", ClientCertificate: Optional},
				{Address: "127.0.0.1:1883", Plaintext: true, ClientCertificate: Off},
			},
			Limits: Limits{Connections: 10000, ConnectionsPerIP: 1000, PacketSize: 1 << 20, ReceiveMaximum: 100,
				TopicLevels: 16, Subscriptions: 1000, SessionExpiry: 7 * 24 * time.Hour, Retained: 100000, AllSubscriptions: 200_000, Sessions: 20_000, SessionsPerUser: 1000, OutboxTotal: 64 << 20, SessionQueue: 64 << 20, IdentityQueue: 256 << 20, RetainedBytes: 64 << 20},
			Lockout: Lockout{Failures: 5, Window: time.Minute, Duration: 5 * time.Minute},
		},
		Access: Access{
			CertificateName: "san",
			Certificates:    []access.CertificateRole{{Match: "press-*", Roles: []string{"sensor"}}},
			Rules: []access.Rule{
				{Actions: []access.Action{sub}, Who: "link:cloud", Topics: []string{"plant/private/#"}},
				{Allow: true, Actions: []access.Action{pub}, Who: "@sensor", Topics: []string{"plant/{id}/#"}},
				{Allow: true, Actions: []access.Action{pub, sub}, Who: "operator", Topics: []string{"plant/#", "cmd/#"}},
				{Allow: true, Actions: []access.Action{sub}, Who: "link:cloud", Topics: []string{"plant/#", "hg/#"}},
				{Allow: true, Actions: []access.Action{pub}, Who: "link:cloud", Topics: []string{"cmd/#"}},
			},
		},
		Queue: Queue{MaxSize: 2 << 30, MinFree: 256 << 20, Lanes: []Lane{{Name: "telemetry", Topics: []string{"#"}, WhenFull: Refuse}}},
		Northbound: []Link{{
			Name: "cloud", Servers: []string{"broker.example.com:8883", "standby.example.com:8883"},
			CA: "/etc/headgate/pki/cloud-ca.crt", Certificate: "/etc/headgate/pki/cloud.crt", Key: "/etc/headgate/pki/cloud.key",
			ClientID: "press-shop-3", KeepAlive: 30 * time.Second, SessionExpiry: 24 * time.Hour,
			Send:    []Route{{Topics: []string{"plant/#", "hg/#"}, Except: []string{"plant/+/debug/#"}, QoS: 1, Retain: Keep, Prefix: "sites/press-shop-3/"}},
			Receive: []Route{{Topics: []string{"sites/press-shop-3/cmd/#"}, QoS: 1, Retain: Ignore, Strip: "sites/press-shop-3/"}},
		}},
		Buses: map[string]Bus{"line-3": {BusConfig: modbus.BusConfig{URL: "tcp://192.0.2.10:502",
			ResponseTimeout: 800 * time.Millisecond}}},
		Devices: []Device{{
			ID: "boiler", Adapter: "modbus", Bus: "line-3", Unit: 7, Groups: map[string]Group{"fast": {Interval: time.Second, StaleAfter: 3 * time.Second}},
			Tags: []modbus.Tag{{Name: "temp", Group: "fast", Table: "holding", Address: 10, Type: "int16", Scale: &scale,
				Unit: "Cel", Invalid: []uint64{0x8000}}},
		}},
		Admin: Admin{Address: "127.0.0.1:9883"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got:\n%+v\nwant:\n%+v", got, want)
	}
}

// TestSmallestShape compares what a plugin and defaults come to.
func TestSmallestShape(t *testing.T) {
	c, err := loadText("f", "version: 1\ndevices:\n  - {id: a, adapter: opcua, settings: {b: 1, a: [\"<\"]}}\n  - {id: b, adapter: snmp}\n"+
		"broker:\n  listeners:\n    - {address: \"localhost:1883\", plaintext: true, anonymous_as: visitor}\n"+
		"    - {address: \":8883\", certificate: a, key: b, client_ca: c}\n")
	if err != nil {
		t.Fatal(err)
	}
	if got := string(c.Devices[0].Settings) + string(c.Devices[1].Settings); got != `{"b":1,"a":["<"]}{}` {
		t.Errorf("settings %s", got)
	}
	if l := c.Broker.Listeners[0]; l.Address != "127.0.0.1:1883" || l.AnonymousAs != "visitor" || l.ClientCertificate != Off {
		t.Errorf("got %+v", l)
	}
	if l := c.Broker.Listeners[1]; l.Address != ":8883" || l.ClientCertificate != Optional {
		t.Errorf("got %+v", l)
	}
	if c.Gateway.ID != "host-1" || len(c.Queue.Lanes) != 1 || c.Queue.Lanes[0].Topics[0] != "#" {
		t.Errorf("got %+v", c)
	}
}

func TestExample(t *testing.T) {
	text := Example("press-shop-3", "data")
	c, err := loadText("headgate.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	if c.Gateway.ID != "press-shop-3" || c.Gateway.Data != "/etc/headgate/data" || len(c.Northbound)+len(c.Devices) != 0 {
		t.Errorf("got %+v", c)
	}
	if len(c.Broker.Listeners) != 1 || c.Broker.Listeners[0].Address != "127.0.0.1:8883" || c.Broker.Listeners[0].Plaintext {
		t.Errorf("listeners %+v", c.Broker.Listeners)
	}
	for _, id := range []string{"1", "true", "-", "0x10", "a.b"} { // names that YAML takes for something else
		if c, err := loadText("f", Example(id, "/data")); err != nil || c.Gateway.ID != id {
			t.Errorf("id %s: %v", id, err)
		}
	}

	// What is commented out holds, too.
	text = regexp.MustCompile(`(?m)^(    )# (- \{)`).ReplaceAllString(text, "$1$2")
	safe, more, _ := strings.Cut(text, "# Where readings go.")
	more = regexp.MustCompile(`(?m)^# ([a-z]+:| )`).ReplaceAllString(more, "$1")
	c, err = loadText("headgate.yaml", safe+"# "+more)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Northbound) != 1 || len(c.Devices) != 1 || len(c.Access.Rules) != 5 {
		t.Errorf("got %d links, %d devices, %d rules", len(c.Northbound), len(c.Devices), len(c.Access.Rules))
	}
}

func TestHostID(t *testing.T) {
	for host, want := range map[string]string{
		"press-shop-3": "press-shop-3", "gw.plant.example.com": "gw.plant.example.com", "": "gateway", "..": "gateway",
		"a b/c": "a-b-c", "Müller": "M-ller", strings.Repeat("x", 80): strings.Repeat("x", 64),
	} {
		if got := hostID(host); got != want || checkName(got) != nil {
			t.Errorf("hostID(%q) = %q, want %q", host, got, want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	for _, s := range []string{
		"", "version: 1\n", Example("a", "b"), "a: &a [*a, *a]\n", "[[[[", "{a: {b: {c: [", "- - - - -\n", "? a\n: b\n", "a: |\n  b\n",
		"version: 1\ndevices: [{id: a, adapter: modbus, bus: b, unit: 1, groups: {g: {interval: 1s}}, tags: {t: {address: \"holding:65535\", type: int64, invalid: [0x8000]}}}]\n",
		"version: 1\nbroker: {listeners: [{address: \"[::1]:1\", plaintext: true}]}\n", "version: 1\nqueue: {lanes: [{name: a, topics: [\"#\"]}]}\n",
		"version: 1\ndevices:\n- {id: a, adapter: x, settings: {a: [1, .nan, 0x1, ~, \"\\u0000\"], 1: 2}}\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := loadText("f", string(data))
		if err != nil {
			_ = err.Error()
			return
		}
		shown := c.Show()
		again, err := loadText("shown", shown)
		if err != nil {
			t.Fatalf("what Show says does not load: %v\n%s", err, shown)
		}
		c.written, again.written = nil, nil
		if !reflect.DeepEqual(c, again) {
			t.Fatalf("loaded from Show:\n%+v\nwant:\n%+v", again, c)
		}
	})
}
