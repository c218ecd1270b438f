// Package wire is the contract between the gateway and its plugins as Go code:
// what adapter.proto generates, the handshake, the limits, and the translation
// of values and qualities. Package sdk speaks it on the plugin's side and
// southbound/plugin on the gateway's. A plugin's author imports neither it nor
// gRPC.
//
// Nothing here trusts the other side: decoding checks what it decodes.
package wire

import "github.com/hashicorp/go-plugin"

//go:generate ../../../tools/proto/generate.sh

// Limits of the contract. The gateway ends a session that exceeds one.
const (
	MaxMessage  = 4 << 20  // bytes of one gRPC message
	MaxReadings = 10_000   // readings of one batch
	MaxTags     = 10_000   // tags of one session
	MaxName     = 256      // bytes of the name of a tag or group, of a type or a unit
	MaxValue    = 64 << 10 // bytes of a string or bytes value
)

// Handshake is what both sides must agree on before they speak. The cookie is
// no secret: it tells a plugin that it was started by a gateway and not by
// hand. ProtocolVersion changes when adapter.proto changes incompatibly.
var Handshake = plugin.HandshakeConfig{
	ProtocolVersion:  1,
	MagicCookieKey:   "HEADGATE_PLUGIN",
	MagicCookieValue: "adapter.v1",
}
