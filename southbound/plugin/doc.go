// Package plugin is a southbound.Adapter that lives in a process of its own.
//
// One process serves one session with one device. Open starts it, Close ends
// it; when it dies, hangs or breaks the contract, the session fails and
// southbound.Device opens another, with its backoff. Nothing else restarts.
//
// The process is not trusted:
//
//   - Only a regular file that nobody but its owner may write is started, and
//     only if root or we own it. What was checked is what runs.
//   - It inherits no environment, no descriptors and no working directory.
//   - It is spoken to over a unix socket in a folder that we made, with a
//     certificate for this one conversation. Any other address is refused.
//   - Every answer is bounded before it is read and held against the contract
//     before it is passed on. A violation is an error that names the plugin.
//   - Every call has a deadline. Read waits as long as the device's interval
//     is, and is watched by a health check instead.
//   - What it logs is cut, rate-limited and never interpreted beyond a level
//     and a message.
//   - It dies with its session and with the gateway, kill -9 included, and
//     takes its own children along.
//
// It runs under our user; what confines it further is the service manager's.
//
// go-plugin starts the process and agrees on keys. Its Client is not used
// beyond that: Client.Client leaks a connection when the process dies while
// dialling, Kill waits without bound for a process that is stopped, and its
// log reader panics on {"@level":1}.
package plugin
