package northbound

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/eclipse/paho.golang/packets"
)

var (
	errSilent = errors.New("no answer to a ping")
	errQoS    = errors.New("the server takes QoS 0 only, which cannot acknowledge: use another server, or set qos: 0 in the send routes")
)

// A disconnectError is a DISCONNECT packet from the server.
type disconnectError struct {
	code   byte
	reason string
}

func (e *disconnectError) Error() string {
	return "the server disconnected: " + withReason(codeText(e.code), e.reason) + disconnectCure(e.code)
}

func disconnectCure(code byte) string {
	switch code {
	case packets.DisconnectSessionTakenOver:
		return ": somebody else connects with our client id; give each gateway its own client_id"
	case packets.DisconnectNotAuthorized:
		return ": look at the server's rules for this certificate"
	}
	return ""
}

// A connackError is a refused CONNECT.
type connackError struct {
	code     byte
	reason   string
	clientID string
}

func (e *connackError) Error() string {
	return "the server refused the connection: " + withReason(codeText(e.code), e.reason) + e.cure()
}

func (e *connackError) cure() string {
	switch e.code {
	case packets.ConnackInvalidClientID, packets.ConnackNotAuthorized, packets.ConnackBadUsernameOrPassword:
		return fmt.Sprintf(": let client id %q with our certificate in at the server, or correct client_id", e.clientID)
	case packets.ConnackUnsupportedProtocolVersion:
		return ": it speaks another version of MQTT; change the link's protocol, or use another server"
	case packets.ConnackUseAnotherServer, packets.ConnackServerMoved:
		return ": correct servers"
	case packets.ConnackRetainNotSupported:
		return ": trying without a retained will"
	}
	return ""
}

func withReason(text, reason string) string {
	if reason == "" {
		return text
	}
	return fmt.Sprintf("%s, %q", text, reason)
}

// explained says what is wrong with a server in words, and keeps the cause.
type explained struct {
	text  string
	cause error
}

func (e *explained) Error() string { return e.text }
func (e *explained) Unwrap() error { return e.cause }

// explain turns a connection error into a sentence with fault and cure. It
// leaves out what changes with each attempt, such as local ports.
func explain(server string, err error) error {
	if err == nil {
		return &explained{server + ": the connection ended", nil}
	}
	if text := explainTLS(server, err); text != "" {
		return &explained{server + ": " + text, err}
	}
	return &explained{server + ": " + explainNet(server, err), err}
}

func explainNet(server string, err error) string {
	host, port, _ := net.SplitHostPort(server)
	var (
		dns     *net.DNSError
		timeout net.Error
		op      *net.OpError
	)
	switch {
	case errors.As(err, &dns):
		return fmt.Sprintf("no address for the name %s: check the name and the gateway's DNS", host)
	case errors.Is(err, errSilent):
		return "the server does not answer pings: the network lost the connection"
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("nothing listens on port %s: check port and server", port)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "no way to the server: check the gateway's network and routes"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time: check the network and firewalls between"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the connection was reset by the server or something between"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the server closed the connection without a reason: see its log"
	case errors.As(err, &op):
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}

const codeNoSuchID = packets.PubcompPacketIdentifierNotFound // of PUBREL and PUBCOMP

// refusedForGood says of a PUBACK that another try of the same message will
// not help; other codes ask for time.
func refusedForGood(code byte) bool {
	switch code {
	case packets.PubackNotAuthorized, packets.PubackTopicNameInvalid,
		packets.PubackPayloadFormatInvalid, packets.DisconnectPacketTooLarge, codeNoSuchID:
		return true
	}
	return blamesMessage(code)
}

// blamesMessage says of a DISCONNECT that something about a message was wrong.
func blamesMessage(code byte) bool {
	switch code {
	case packets.DisconnectMalformedPacket, packets.DisconnectProtocolError, packets.DisconnectNotAuthorized,
		packets.DisconnectTopicNameInvalid, packets.DisconnectPacketTooLarge, packets.DisconnectPayloadFormatInvalid,
		packets.DisconnectRetainNotSupported, packets.DisconnectQoSNotSupported:
		return true
	}
	return false
}

// hungUp says that the other end closed the connection, without a word.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

var codeNames = map[byte]string{
	0x80: "unspecified error", 0x81: "malformed packet", 0x82: "protocol error", 0x83: "implementation specific error",
	0x84: "unsupported protocol version", 0x85: "client identifier not valid", 0x86: "bad user name or password",
	0x87: "not authorized", 0x88: "server unavailable", 0x89: "server busy", 0x8A: "banned", 0x8B: "server shutting down",
	0x8C: "bad authentication method", 0x8D: "keep alive timeout", 0x8E: "session taken over", 0x8F: "topic filter invalid",
	0x90: "topic name invalid", 0x91: "packet identifier in use", 0x92: "packet identifier not found", 0x93: "receive maximum exceeded", 0x95: "packet too large",
	0x96: "message rate too high", 0x97: "quota exceeded", 0x98: "administrative action", 0x99: "payload format invalid",
	0x9A: "retain not supported", 0x9B: "QoS not supported", 0x9C: "use another server", 0x9D: "server moved",
	0x9E: "shared subscriptions not supported", 0x9F: "connection rate exceeded", 0xA0: "maximum connect time",
	0xA1: "subscription identifiers not supported", 0xA2: "wildcard subscriptions not supported",
}

// codeText is a reason code in words and hex [MQTT-2.4].
func codeText(code byte) string {
	name := codeNames[code]
	if name == "" {
		name = "reason code"
	}
	return fmt.Sprintf("%s 0x%02X", name, code)
}
