// Package storequeue is the durable log between whoever publishes and whoever
// reads: one log of messages on disk, with many readers. A reader is a cloud
// link or a local session: a name, a cursor and the messages marked for it.
// A message is stored once, however many read it.
//
// What holds:
//
//  1. Submit's done(seq, nil), and Append's nil, mean: on disk. What arrived
//     while one commit was syncing is the next commit. No setting weakens this;
//     Config.Linger only lets a commit wait for company.
//  2. Next yields strictly rising sequence numbers. A sequence number rises by
//     one per message and is never reused; together with Epoch it identifies a
//     message for ever.
//  3. Ack only moves forward, and a message is there until every reader it is
//     marked for has acknowledged it.
//  4. Reopening yields what followed the last acknowledgement that reached the
//     disk: at most a repeat, never a gap.
//  5. A record that is not what was written is never a message: it is damage,
//     which costs what was hit, and neither the start nor what lies around it.
//  6. What a reader will not get (its limits, age, expiry, damage) is counted in
//     the commit that passes it, and stays counted until it was announced.
//
// A queue can be encrypted: records and what state.db knows of readers and of
// callers are sealed with data keys, which lie in a ring in state.db that the
// master key opens.
//
// On disk a queue is a folder: segments named by their first sequence number,
// each one bbolt file that is unlinked whole once nobody needs it and rewritten
// when most of it is needed no more; state.db with the cursors, the readers'
// small facts and the keys; state.copy, which takes its place when it is
// damaged; and *.corrupt, what was damaged and is for a person to look at. A
// file that is still being made ends in .tmp and holds nothing yet.
//
// Where to read: a message goes in through commit.go, room.go and seal.go and
// out through reader.go and scan.go; limits.go, shed.go, loss.go and compact.go
// keep the disk from filling; open.go, lastcommit.go, verify.go, mend.go and
// salvage.go start from whatever the disk holds; vault.go, ring.go and rekey.go
// encrypt.
package storequeue
