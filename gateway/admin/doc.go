// Package admin is the gateway's inside as people and tools see it: status and
// health over HTTP on a unix socket. The command line is a client of the same
// API. It changes nothing but what a reload of the configuration changes.
//
// Who may ask is decided twice: by the socket's mode (0660) and by the
// caller's uid, which the kernel tells. Allowed are root, the gateway's own
// user and members of its group.
package admin
