// Package northbound carries messages from the queue to a cloud broker over
// MQTT 5 with mutual TLS, and brings commands back.
//
//	Source.Poll ─▶ sender ─▶ window ─▶ conn ─▶ cloud
//	Source.Ack  ◀─────────── window ◀─ PUBACK ─┘
//	Handle      ◀─ receive ◀────────── PUBLISH
//
// What holds:
//
//  1. One party retransmits: the queue. The MQTT client keeps nothing of what
//     was sent; after each connect sending starts again from Source.Acked.
//  2. Ack moves over the longest prefix of a lane in which every message was acknowledged
//     by the cloud, or left out and counted: no longer allowed, expired, or
//     quarantined.
//  3. Messages of one topic, which is in one lane, arrive in order. When one was refused and is sent
//     again, those behind it on its topic are sent again too, so that the last
//     word stays the last; consumers drop repeats by hg-id.
//  4. Not more than the server's Receive Maximum is unanswered.
//  5. A command is acknowledged once Handle has returned nil, never before.
//  6. No message is tried for ever after the server said that it never wants
//     it: three refusals, then quarantine.
//
// It never asks for rules, certificates or names by itself: those come in as
// functions, and are asked again at each message and each connect.
package northbound
