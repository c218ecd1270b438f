// Package pki makes and reads the keys and certificates of the local house and
// hands out *tls.Config by function, so that rotated files are used without a
// restart.
//
// What always holds:
//
//   - A private key is in a file of mode 0600 from its first byte on, whatever
//     the umask, and a key that others may read is refused.
//   - Nothing is overwritten but the list of revoked certificates, and that as a
//     whole. A new certificate is a new pair of files.
//   - A revoked certificate is refused at the next handshake. A list that cannot
//     be read is never taken for an empty one: at the start it is an error, and
//     later the last good one stays in force. One that is out of date is used,
//     aloud.
//   - There is no way to skip verification, on neither side.
//   - TLS 1.2 and 1.3 with AEAD suites only; RSA keys of 2048 bits or more,
//     ECDSA on P-256 or larger, Ed25519. The rest is refused by name.
//   - Errors name the file, what is wrong with it and what to do.
//
// A client certificate of the local house carries its identity as the URI
// "urn:headgate:client:NAME" and, for people to read, NAME as common name.
//
// It never asks the network (no OCSP, no time server), and it knows nothing of
// users and rules: who a certificate speaks for is read by gateway/access.
package pki
