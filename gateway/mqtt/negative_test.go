package mqtt

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// violations are packets that must be refused with a code and, where it says
// most, a clause. Rows named PB and N are known failures of other brokers.
var violations = []struct {
	name    string
	version Version
	hex     string
	code    ReasonCode
	clause  string
}{
	{"PB01 SUBSCRIBE cut in its properties", V5, "8208 0001 1e 0b01 000161", MalformedPacket, "section 2.2.2.1"},
	{"PB05 wildcard in the will topic", V311, "1015 00044d515454 04 06 0000 000163 0003612f23 000178", TopicNameInvalid, "MQTT-4.7.0-1"},
	{"PB05 empty will topic", V311, "1012 00044d515454 04 06 0000 000163 0000 000178", TopicNameInvalid, "MQTT-4.7.3-1"},
	{"PB14 filter a+", V5, "8208 0001 00 0002612b 00", TopicFilterInvalid, "MQTT-4.7.1-2"},
	{"PB14 filter a#", V5, "8208 0001 00 00026123 00", TopicFilterInvalid, "MQTT-4.7.1-1"},
	{"PB14 filter a/b+/c", V311, "820b 0001 0006612f622b2f63 00", TopicFilterInvalid, "MQTT-4.7.1-2"},
	{"PB14 filter $share//x", V5, "820f 0001 00 00092473686172652f2f78 00", TopicFilterInvalid, "MQTT-4.8.2-1"},
	{"PB14 filter $share/g/", V5, "820f 0001 00 00092473686172652f672f 00", TopicFilterInvalid, "MQTT-4.8.2-2"},
	{"PB15 wildcard in a topic", V5, "3006 0003612f23 00", TopicNameInvalid, "MQTT-3.3.2-2"},
	{"PB15 U+0000 in a topic", V5, "3006 0003610062 00", MalformedPacket, "MQTT-1.5.4-2"},
	{"PB15 overlong topic", V5, "3005 0002c0af 00", MalformedPacket, "MQTT-1.5.4-1"},
	{"PB15 surrogate in a topic", V5, "3006 0003eda080 00", MalformedPacket, "MQTT-1.5.4-1"},
	{"PB16 U+0000 in the user name", V311, "1010 00044d515454 04 82 0000 0000 00026100", MalformedPacket, "MQTT-1.5.4-2"},
	{"PB16 user name is not UTF-8", V5, "1010 00044d515454 05 82 0000 00 0000 0001ff", MalformedPacket, "MQTT-1.5.4-1"},
	{"PB17 password without user name", V311, "100f 00044d515454 04 42 0000 0000 000170", MalformedPacket, "MQTT-3.1.2-22 of 3.1.1"},

	{"type 0", V5, "0000", MalformedPacket, "section 2.1.2"},
	{"AUTH in 3.1.1", V311, "f000", MalformedPacket, "section 2.1.2"},
	{"not CONNECT first", 0, "c000", ProtocolError, "MQTT-3.1.0-1"},
	{"PINGREQ flags", V5, "c100", MalformedPacket, "MQTT-2.1.3-1"},
	{"SUBSCRIBE flags", V5, "8000", MalformedPacket, "MQTT-2.1.3-1"},
	{"PUBREL flags", V311, "60020001", MalformedPacket, "MQTT-2.1.3-1"},
	{"remaining length of five bytes", V5, "30ffffffff01", MalformedPacket, "section 2.1.4"},
	{"remaining length padded", V5, "c08000", MalformedPacket, "MQTT-1.5.5-1"},
	{"remaining length padded to four", V5, "4082808000 0001", MalformedPacket, "MQTT-1.5.5-1"},
	{"CONNECT padded", 0, "108d00 00044d515454 05 02 0000 00 0000", MalformedPacket, "MQTT-1.5.5-1"},
	{"trailing byte", V5, "c00100", MalformedPacket, "section 2.1.4"},
	{"trailing byte behind an ack", V311, "4003 0001 00", MalformedPacket, "section 2.1.4"},
	{"DISCONNECT with a body in 3.1.1", V311, "e00100", MalformedPacket, "section 2.1.4"},

	{"CONNECT reserved flag", V5, "100d 00044d515454 05 03 0000 00 0000", MalformedPacket, "MQTT-3.1.2-3"},
	{"will QoS without will", V311, "100c 00044d515454 04 0a 0000 0000", MalformedPacket, "MQTT-3.1.2-11"},
	{"will QoS 3", V311, "100c 00044d515454 04 1e 0000 0000", MalformedPacket, "MQTT-3.1.2-12"},
	{"will retain without will", V311, "100c 00044d515454 04 22 0000 0000", MalformedPacket, "MQTT-3.1.2-13"},
	{"kept session without client id", V311, "100c 00044d515454 04 00 0000 0000", ClientIdentifierNotValid, "MQTT-3.1.3-8 of 3.1.1"},
	{"receive maximum 0", V5, "1010 00044d515454 05 02 0000 03210000 0000", ProtocolError, "section 2.2.2.2"},
	{"maximum packet 0", V5, "1012 00044d515454 05 02 0000 052700000000 0000", ProtocolError, "section 2.2.2.2"},
	{"request problem 2", V5, "100f 00044d515454 05 02 0000 021702 0000", ProtocolError, "section 2.2.2.2"},
	{"session expiry twice", V5, "1017 00044d515454 05 02 0000 0a 1100000001 1100000001 0000", ProtocolError, "section 2.2.2.2"},
	{"property of PUBLISH in CONNECT", V5, "1010 00044d515454 05 02 0000 03230001 0000", MalformedPacket, "section 2.2.2.2"},
	{"unknown property", V5, "3006 000161 02 0400", MalformedPacket, "section 2.2.2.2"},
	{"property 0x80 00", V5, "3006 000161 02 8100", MalformedPacket, "MQTT-1.5.5-1"},
	{"property longer than its block", V5, "3008 000161 03 030005 61", MalformedPacket, "section 2.1.4"},
	{"authentication data without method", V5, "1010 00044d515454 05 02 0000 03160000 0000", ProtocolError, "section 3.1.2.11.10"},

	{"CONNACK reserved flags", V5, "2003 02 00 00", MalformedPacket, "MQTT-3.2.2-1"},
	{"CONNACK refusal with a session", V311, "2002 01 05", ProtocolError, "MQTT-3.2.2-6"},
	{"CONNACK return code 6", V311, "2002 00 06", MalformedPacket, "section 3.2.2.3 of 3.1.1"},
	{"CONNACK with a code of PUBACK", V5, "2003 00 10 00", ProtocolError, "section 2.4"},
	{"CONNACK maximum QoS 2", V5, "2005 00 00 02 2402", ProtocolError, "section 2.2.2.2"},

	{"QoS 3", V5, "3606 000161 0001 00", MalformedPacket, "MQTT-3.3.1-4"},
	{"DUP with QoS 0", V311, "3803 000161", MalformedPacket, "MQTT-3.3.1-2"},
	{"PUBLISH with packet id 0", V311, "3205 000161 0000", ProtocolError, "MQTT-2.2.1-3"},
	{"PUBLISH without topic", V311, "3002 0000", ProtocolError, "section 3.3.2.1"},
	{"PUBLISH without topic and alias", V5, "3003 0000 00", ProtocolError, "section 3.3.2.1"},
	{"topic alias 0", V5, "3007 000161 03 230000", TopicAliasInvalid, "MQTT-3.3.2-8"},
	{"topic alias twice", V5, "300a 000161 06 230001 230001", ProtocolError, "section 2.2.2.2"},
	{"subscription identifier 0", V5, "3006 000161 02 0b00", ProtocolError, "section 2.2.2.2"},
	{"wildcard in the response topic", V5, "3008 000161 04 0800012b", ProtocolError, "MQTT-3.3.2-14"},
	{"payload format 2", V5, "3006 000161 02 0102", ProtocolError, "section 2.2.2.2"},
	{"user property cut", V5, "300a 000161 06 2600016b0002", MalformedPacket, "section 2.1.4"},

	{"PUBACK with packet id 0", V311, "4002 0000", ProtocolError, "MQTT-2.2.1-3"},
	{"PUBACK with a code of DISCONNECT", V5, "4003 0001 8e", ProtocolError, "section 2.4"},
	{"SUBSCRIBE without filter", V5, "8203 0001 00", ProtocolError, "MQTT-3.8.3-2"},
	{"SUBSCRIBE with packet id 0", V311, "8206 0000 000161 00", ProtocolError, "MQTT-2.2.1-3"},
	{"SUBSCRIBE without options", V311, "8205 0001 000161", MalformedPacket, "section 2.1.4"},
	{"SUBSCRIBE reserved options", V5, "8207 0001 00 000161 40", MalformedPacket, "MQTT-3.8.3-5"},
	{"SUBSCRIBE options of 5 in 3.1.1", V311, "8206 0001 000161 04", MalformedPacket, "MQTT-3.8.3-4 of 3.1.1"},
	{"SUBSCRIBE QoS 3", V5, "8207 0001 00 000161 03", ProtocolError, "section 3.8.3.1"},
	{"retain handling 3", V5, "8207 0001 00 000161 30", ProtocolError, "section 3.8.3.1"},
	{"no local on a shared subscription", V5, "8210 0001 00 000a2473686172652f672f61 04", ProtocolError, "MQTT-3.8.3-4"},
	{"subscription identifier twice", V5, "820b 0001 04 0b010b02 000161 00", ProtocolError, "section 2.2.2.2"},
	{"SUBACK without code", V311, "9002 0001", ProtocolError, "MQTT-3.8.4-6"},
	{"SUBACK with a code of 5 in 3.1.1", V311, "9003 0001 87", ProtocolError, "MQTT-3.9.3-2 of 3.1.1"},
	{"UNSUBSCRIBE without filter", V311, "a202 0001", ProtocolError, "MQTT-3.10.3-2"},
	{"UNSUBSCRIBE empty filter", V311, "a204 0001 0000", TopicFilterInvalid, "MQTT-4.7.3-1"},
	{"UNSUBACK without code", V5, "b003 0001 00", ProtocolError, "section 3.11.3"},
	{"DISCONNECT with a code of SUBACK", V5, "e00101", ProtocolError, "section 2.4"},
	{"AUTH without method", V5, "f00118", ProtocolError, "section 3.15.2.2.2"},
}

func TestViolations(t *testing.T) {
	for _, test := range violations {
		p, err := decodeOne(test.version, unhex(t, test.hex))
		var e *Error
		if !errors.As(err, &e) || e.Code != test.code || e.Clause != test.clause {
			t.Errorf("%s: %+v, %v; want %v [%s]", test.name, p, err, test.code, test.clause)
		}
	}
}

func TestSecondConnect(t *testing.T) {
	connect := unhex(t, "100c 00044d515454 04 02 0000 0000")
	d := NewDecoder(bytes.NewReader(append(connect, connect...)), 0)
	if _, err := d.Read(); err != nil {
		t.Fatal(err)
	}
	var e *Error
	if _, err := d.Read(); !errors.As(err, &e) || e.Clause != "MQTT-3.1.0-2" {
		t.Error(err)
	}
}

// 3.1.1 does not ask for the shortest remaining length.
func TestPaddedLengthIn311(t *testing.T) {
	if _, err := decodeOne(V311, unhex(t, "c08000")); err != nil {
		t.Error(err)
	}
}

// Each property is refused in each packet that table 2-4 does not name [N-29].
func TestPropertyInWrongPacket(t *testing.T) {
	before := map[Type]string{
		CONNECT: "10 00044d515454 05 02 0000", CONNACK: "20 00 00", PUBLISH: "30 000161",
		PUBACK: "40 0001 00", PUBREC: "50 0001 00", PUBREL: "62 0001 00", PUBCOMP: "70 0001 00",
		SUBSCRIBE: "82 0001", SUBACK: "90 0001", UNSUBSCRIBE: "a2 0001", UNSUBACK: "b0 0001",
		DISCONNECT: "e0 00", AUTH: "f0 18",
	}
	value := map[wireType]string{asFlag: "01", asNumber2: "0001", asNumber4: "00000001", asVarint: "01",
		asText: "000161", asBinary: "000161", asPair: "000161000162"}
	for typ, head := range before {
		for id, rule := range properties {
			if rule.name == "" || rule.in.has(typ) {
				continue
			}
			wire := unhex(t, head)
			block := unhex(t, fmt.Sprintf("%02x", id)+value[rule.wire])
			body := append(append(wire[1:], byte(len(block))), block...)
			_, err := decodeOne(V5, append([]byte{wire[0], byte(len(body))}, body...))
			var e *Error
			if !errors.As(err, &e) || e.Code != MalformedPacket || !strings.Contains(e.Text, "belong") {
				t.Errorf("%s in %v: %v", rule.name, typ, err)
			}
		}
	}
}

// What a packet costs in memory is a small multiple of its size [N-32].
func TestMemoryFollowsInput(t *testing.T) {
	block := bytes.Repeat([]byte{0x26, 0, 0, 0, 0}, 60_000)
	flood := appendVarint([]byte{0, 1, 'a'}, uint32(len(block)))
	for name, wire := range map[string][]byte{
		"user properties": frame(0x30, append(flood, block...)),
		"filters":         frame(0x82, append([]byte{0, 1, 0}, bytes.Repeat([]byte{0, 2, 'a', 'b', 0}, 60_000)...)),
		"unsubscribe":     frame(0xA2, append([]byte{0, 1, 0}, bytes.Repeat([]byte{0, 2, 'a', 'b'}, 60_000)...)),
		"empty filters":   frame(0xA2, append([]byte{0, 1, 0}, make([]byte, 200_000)...)),
		"reason codes":    frame(0x90, append([]byte{0, 1, 0}, make([]byte, 200_000)...)),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		decodeOne(V5, wire)
		runtime.ReadMemStats(&after)
		if cost := after.TotalAlloc - before.TotalAlloc; cost > uint64(15*len(wire)) {
			t.Errorf("%s: %d bytes for a packet of %d", name, cost, len(wire))
		}
	}
}

func frame(first byte, body []byte) []byte {
	return append(appendVarint([]byte{first}, uint32(len(body))), body...)
}
