// Package enrol has a link's certificate renewed before it ends: by EST
// (RFC 7030) or by a command of the owner's.
//
// Each renewal has a key of its own, made here; it leaves the house in no form. What
// comes back passes the check that a link makes before it replaces, as a whole,
// what was there. Whatever goes wrong is tried again, ever more slowly, and
// nobody waits for it: the link goes on with what it has.
package enrol
