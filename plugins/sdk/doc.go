// Package sdk turns a southbound.Adapter into a Headgate plugin. A plugin is
// one program with one call in main:
//
//	func main() {
//		sdk.Serve("acme", newAdapter)
//	}
//
// It imports this package and southbound, nothing else of Headgate. Build it,
// install it as /usr/lib/headgate/plugins/acme and name it in the
// configuration:
//
//	devices:
//	  - id: mixer
//	    adapter: acme
//	    settings: {address: "192.0.2.7:4001", interval: 1s}
//
// The gateway starts one process for each session with a device, so a plugin
// serves one device and one session; a crash costs that session and nothing
// else. When Session.Close has returned the process is killed, and after a
// failure another is started: a plugin carries no reconnect logic. The rules
// for adapters are in package southbound, and southbound/adaptertest proves
// them.
//
// A plugin inherits nothing from the gateway: no environment, no files, no
// working directory. What it needs comes in its settings. It logs with
// log/slog; what it prints on stdout or stderr is logged as it is. The process
// ends when the gateway does, however that ends.
package sdk
