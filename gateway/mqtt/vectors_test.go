package mqtt

import (
	"bytes"
	"encoding/hex"
	"math"
	"reflect"
	"strings"
	"testing"
)

// vectors are packets and their bytes on the wire, true in both directions.
var vectors = []struct {
	name    string
	version Version
	hex     string
	packet  Packet
}{
	{"CONNECT", V311, "100d 00044d515454 04 02 003c 000161", &Connect{
		Version: V311, ClientID: "a", CleanStart: true, KeepAlive: 60, ReceiveMaximum: 65535, RequestProblem: true}},
	{"CONNECT with everything", V311, "101a 00044d515454 04 f4 0000 000163 000177 000178 000175 00027077", &Connect{
		Version: V311, ClientID: "c", UsernameFlag: true, Username: "u", PasswordFlag: true, Password: Secret("pw"),
		Will:          &Will{Topic: "w", Payload: []byte("x"), QoS: 2, Retain: true},
		SessionExpiry: math.MaxUint32, ReceiveMaximum: 65535, RequestProblem: true}},
	{"CONNECT", V5, "100d 00044d515454 05 02 003c 00 0000", &Connect{
		Version: V5, CleanStart: true, KeepAlive: 60, ReceiveMaximum: 65535, RequestProblem: true}},
	{"CONNECT with everything", V5, "105f 00044d515454 05 ce 000a " +
		"26 1100000e10 21000a 2700010000 220005 1901 1700 15000353434d 1600020102 2600016b000176" +
		"000163 1f 1800000005 0101 0200000009 03000174 08000172 09000101 2600016b000176 000177 0000 000175 000170",
		&Connect{
			Version: V5, ClientID: "c", CleanStart: true, KeepAlive: 10,
			UsernameFlag: true, Username: "u", PasswordFlag: true, Password: Secret("p"),
			Will:          &Will{Topic: "w", Payload: []byte{}, QoS: 1, Delay: 5, Properties: everyProperty()},
			SessionExpiry: 3600, ReceiveMaximum: 10, MaximumPacket: 65536, TopicAliasMax: 5,
			RequestResponse: true, AuthMethod: "SCM", AuthData: Secret{1, 2}, UserProperties: kv()}},
	{"CONNACK", V311, "2002 01 00", connack(V311, func(p *Connack) { p.SessionPresent = true })},
	{"CONNACK refusal", V311, "2002 00 05", connack(V311, func(p *Connack) { p.Code = NotAuthorized })},
	{"CONNACK", V5, "2003 00 00 00", connack(V5, func(*Connack) {})},
	{"CONNACK refusal", V5, "2009 00 87 06 1f00036e6f21", connack(V5, func(p *Connack) {
		p.Code, p.ReasonString = NotAuthorized, "no!"
	})},
	{"CONNACK with everything", V5, "203f 01 00 3c 1100000001 210002 2400 2500 2700000003 12000169 220004 2800 2900 2a00" +
		"130005 1a000172 1f000173 2600016b000176 1c000174 1500016d 16000164", connackFull()},
	{"PUBLISH QoS 0", V311, "3006 0003612f62 78", &Publish{Topic: []byte("a/b"), Payload: []byte("x")}},
	{"PUBLISH QoS 2", V311, "3d08 0003612f62 1234 78", &Publish{
		Dup: true, Retain: true, QoS: 2, PacketID: 0x1234, Topic: []byte("a/b"), Payload: []byte("x")}},
	{"PUBLISH QoS 0", V5, "3006 0003612f62 00", &Publish{Topic: []byte("a/b"), Payload: []byte{}}},
	{"PUBLISH by alias", V5, "3209 0000 0001 03230007 78", &Publish{
		QoS: 1, PacketID: 1, Topic: []byte{}, TopicAlias: 7, Payload: []byte("x")}},
	{"PUBLISH with everything", V5, "3429 000161 0002 22 0101 0200000009 03000174 08000172 09000101" +
		"2600016b000176 230001 0b7f 0b8001 78", &Publish{
		QoS: 2, PacketID: 2, Topic: []byte("a"), TopicAlias: 1, SubscriptionIDs: []uint32{127, 128},
		Properties: everyProperty(), Payload: []byte("x")}},
	{"PUBACK", V311, "4002 0001", &Ack{Kind: PUBACK, PacketID: 1}},
	{"PUBREC", V311, "5002 0001", &Ack{Kind: PUBREC, PacketID: 1}},
	{"PUBREL", V311, "6202 0001", &Ack{Kind: PUBREL, PacketID: 1}},
	{"PUBCOMP", V311, "7002 ffff", &Ack{Kind: PUBCOMP, PacketID: 65535}},
	{"PUBACK", V5, "4002 0001", &Ack{Kind: PUBACK, PacketID: 1}},
	{"PUBREC with code", V5, "5003 0001 97", &Ack{Kind: PUBREC, PacketID: 1, Code: QuotaExceeded}},
	{"PUBREL with code", V5, "6203 0001 92", &Ack{Kind: PUBREL, PacketID: 1, Code: PacketIdentifierNotFound}},
	{"PUBCOMP with properties", V5, "700f 0001 00 0b 1f000173 2600016b000176", &Ack{
		Kind: PUBCOMP, PacketID: 1, ReasonString: "s", UserProperties: kv()}},
	{"SUBSCRIBE", V311, "820a 0001 000161 01 00012b 02", &Subscribe{PacketID: 1,
		Subscriptions: []Subscription{{Filter: "a", QoS: 1}, {Filter: "+", QoS: 2}}}},
	{"SUBSCRIBE", V5, "8210 0001 09 0b05 2600016b000176 000161 2e", &Subscribe{PacketID: 1, ID: 5, UserProperties: kv(),
		Subscriptions: []Subscription{{Filter: "a", QoS: 2, NoLocal: true, RetainAsPublished: true, RetainHandling: 2}}}},
	{"SUBACK", V311, "9004 0001 02 80", &Suback{PacketID: 1, Codes: []ReasonCode{GrantedQoS2, UnspecifiedError}}},
	{"SUBACK", V5, "9010 0001 0b 1f000173 2600016b000176 01 87", &Suback{PacketID: 1,
		Codes: []ReasonCode{GrantedQoS1, NotAuthorized}, ReasonString: "s", UserProperties: kv()}},
	{"UNSUBSCRIBE", V311, "a205 0001 000161", &Unsubscribe{PacketID: 1, Filters: []string{"a"}}},
	{"UNSUBSCRIBE", V5, "a210 0001 07 2600016b000176 000161 000162", &Unsubscribe{
		PacketID: 1, Filters: []string{"a", "b"}, UserProperties: kv()}},
	{"UNSUBACK", V311, "b002 0001", &Unsuback{PacketID: 1}},
	{"UNSUBACK", V5, "b010 0001 0b 1f000173 2600016b000176 00 11", &Unsuback{PacketID: 1,
		Codes: []ReasonCode{Success, NoSubscriptionExisted}, ReasonString: "s", UserProperties: kv()}},
	{"PINGREQ", V311, "c000", &Pingreq{}},
	{"PINGRESP", V311, "d000", &Pingresp{}},
	{"PINGREQ", V5, "c000", &Pingreq{}},
	{"PINGRESP", V5, "d000", &Pingresp{}},
	{"DISCONNECT", V311, "e000", &Disconnect{}},
	{"DISCONNECT", V5, "e000", &Disconnect{}},
	{"DISCONNECT with code", V5, "e001 04", &Disconnect{Code: DisconnectWithWill}},
	{"DISCONNECT with everything", V5, "e016 9d 14 1100000000 1f000173 1c000174 2600016b000176", &Disconnect{
		Code: ServerMoved, HasSessionExpiry: true, ReasonString: "s", ServerReference: "t", UserProperties: kv()}},
	{"AUTH", V5, "f000", &Auth{}},
	{"AUTH with everything", V5, "f016 18 14 1500016d 1600020102 1f000173 2600016b000176", &Auth{
		Code: ContinueAuthentication, Method: "m", Data: Secret{1, 2}, ReasonString: "s", UserProperties: kv()}},
}

func kv() []UserProperty { return []UserProperty{{"k", "v"}} }

func everyProperty() Properties {
	return Properties{
		Text: true, MessageExpiry: 9, HasMessageExpiry: true, ContentType: "t", ResponseTopic: "r",
		CorrelationData: []byte{1}, UserProperties: kv(),
	}
}

func connack(v Version, change func(*Connack)) *Connack {
	p := &Connack{
		Version: v, ReceiveMaximum: 65535, MaximumQoS: 2, RetainAvailable: true,
		WildcardAvailable: true, SubscriptionIDs: true, SharedAvailable: true,
	}
	change(p)
	return p
}

func connackFull() *Connack {
	return &Connack{
		Version: V5, SessionPresent: true, SessionExpiry: 1, HasSessionExpiry: true, ReceiveMaximum: 2,
		MaximumPacket: 3, AssignedClientID: "i", TopicAliasMax: 4, ReasonString: "s", UserProperties: kv(),
		ServerKeepAlive: 5, HasServerKeepAlive: true, ResponseInformation: "r", ServerReference: "t",
		AuthMethod: "m", AuthData: Secret("d"),
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decodeOne(v Version, wire []byte) (Packet, error) {
	d := NewDecoder(bytes.NewReader(wire), 0)
	d.SetVersion(v)
	return d.Read()
}

func TestVectors(t *testing.T) {
	for _, test := range vectors {
		t.Run(test.name+" "+test.version.String(), func(t *testing.T) {
			wire := unhex(t, test.hex)
			p, err := decodeOne(test.version, wire)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(p, test.packet) {
				t.Errorf("decoded %+v\nwant    %+v", p, test.packet)
			}
			got, err := Append([]byte("before"), test.version, test.packet)
			if err != nil || !bytes.Equal(got, append([]byte("before"), wire...)) {
				t.Errorf("encoded %x, %v\nwant    %x", got, err, wire)
			}
		})
	}
}

func TestVectorsNameEveryPropertyAndType(t *testing.T) {
	var types uint16
	var seen uint64
	for _, test := range vectors {
		d := NewDecoder(bytes.NewReader(unhex(t, test.hex)), 0)
		d.SetVersion(test.version)
		p, err := d.Read()
		if err != nil {
			t.Fatal(test.name, err)
		}
		types |= 1 << p.Type()
		seen |= d.in.set.seen
		if c, ok := p.(*Connect); ok && c.ReceiveMaximum == 10 {
			seen |= 1<<sessionExpiry | 1<<requestProblem | 1<<requestResponse // the will's came after
		}
	}
	if types != 0xFFFE {
		t.Errorf("types %016b", types)
	}
	count := 0
	for id, rule := range properties {
		if rule.name == "" {
			continue
		}
		if count++; seen>>id&1 == 0 {
			t.Errorf("no vector has a %s", rule.name)
		}
	}
	if count != 27 {
		t.Errorf("%d properties", count)
	}
}

// Each packet cut at each byte waits for more, or is refused when its length
// says that it is whole [N-01].
func TestTruncated(t *testing.T) {
	for _, test := range vectors {
		wire := unhex(t, test.hex)
		for cut := range wire {
			if p, err := decodeOne(test.version, wire[:cut]); err == nil {
				t.Errorf("%s: %d of %d bytes decode as %+v", test.name, cut, len(wire), p)
			}
		}
		for size := range int(wire[1]) {
			short := append([]byte{wire[0], byte(size)}, wire[2:2+size]...)
			for _, v := range []Version{0, V311, V5} {
				decodeOne(v, short) // must not panic; some are packets
			}
		}
	}
}
