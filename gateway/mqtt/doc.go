// Package mqtt is the wire: the control packets of MQTT 3.1.1 and MQTT 5, topic
// names and topic filters.
//
// A [Decoder] reads packets from one connection, for servers and for clients;
// [Append] writes them. Both are strict: what the standard forbids is an error
// that names the clause, and the reason code to tell the peer before closing.
// Clause numbers are those of MQTT 5 unless 3.1.1 is named.
//
// The package keeps three promises. No input makes it panic. Memory follows
// what has arrived, never what was announced. Decoding or encoding a PUBLISH
// without properties, or with a topic alias alone, and any plain
// acknowledgement allocates nothing.
//
// It holds no session state: which packet may come when, whether a packet
// identifier is in use, what a topic alias stands for and which packets only a
// server may send are decided by those who use it. It starts no goroutine and
// touches nothing but the io.Reader it was given.
package mqtt
