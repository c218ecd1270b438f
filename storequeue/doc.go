// Package storequeue is the durable log between whoever publishes and whoever
// reads: one log of messages on disk, with many readers. A reader is a cloud
// link or a local session: a name, a cursor and the messages marked for it.
// A message is stored once, however many read it.
//
// What holds:
//
//  1. Submit's done(seq, nil), and Append's nil, mean: on disk. What arrived
//     while one commit was syncing is the next commit; there is no timer and
//     no setting that weakens this.
//  2. Next yields strictly rising sequence numbers. A sequence number rises by
//     one per message and is never reused; together with Epoch it identifies a
//     message for ever.
//  3. Ack only moves forward, and a message is there until every reader it is
//     marked for has acknowledged it.
//  4. Reopening yields what followed the last acknowledgement that reached the
//     disk: at most a repeat, never a gap.
//  5. A record that is not what was written is an error, never a message.
//
// On disk a queue is a folder: segments named by their first sequence number,
// each one bbolt file that is unlinked whole once nobody needs it, and
// state.db with the cursors and the readers' small facts. A segment that is
// still being made ends in .tmp and holds nothing yet.
package storequeue
