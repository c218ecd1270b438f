// Package broker is the local MQTT broker: listeners, sessions, retained
// messages and delivery, for MQTT 3.1.1 and 5.
//
// A PUBLISH travels like this:
//
//	conn.readLoop → conn.publish → Broker.route → storequeue.Submit
//	    … commit …
//	publication.committed → PUBACK or PUBREC into the outbox, and live subscribers
//	conn.deliver ← storequeue.Reader: each subscriber with QoS 1 or 2, in the log's order
//
// What always holds:
//
//   - A PUBACK, a PUBREC and a nil from Publish leave only after the commit that
//     holds the message.
//   - In a durable session, PUBCOMP and PUBREL leave only after the commit that
//     knows of the PUBREL or PUBREC they answer (ledger): QoS 2 is exactly once
//     over any crash.
//   - Everything is refused that no rule allows. The rules are asked at CONNECT
//     about the will and again when it is sent, about every PUBLISH after its
//     topic alias is resolved, about every filter, and about every delivery:
//     live, queued, shared and retained, the last about its author as well.
//   - A client id belongs to the identity that opened its session. Nobody else
//     can take the session over, end it or learn what it holds.
//   - What is delivered with QoS 1 or 2 comes from the log, in its order. A
//     session that is away costs disk, not memory.
//   - Every buffer is bounded. What does not fit waits on disk, or is dropped
//     and counted (QoS 0 only), or costs its sender the connection.
//   - Nobody waits for anybody else's socket: no lock is held over a read, a
//     write or a commit.
//
// It never acknowledges what it did not store, never lets a client publish to
// $SYS or $share, and never trusts a length it was only told.
package broker
