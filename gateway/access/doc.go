// Package access decides who a client is and what it may do.
//
// A Gate turns credentials into an Identity (Authenticate) and an Identity, an
// action and a topic into yes or no (Allow, AllowFilter). Everything that
// moves a message asks it: connect, publish, subscribe, each delivery, links,
// devices and plugins.
//
// What always holds:
//
//   - Refused is the default. No rule, an unreadable name, a malformed topic,
//     a nil *Rules or an empty identity all end in "no".
//   - The first rule that matches decides, and nothing after it.
//   - An identity's name cannot change what a filter means. A name with '+',
//     '#', '/' or U+0000, or one that starts with '$', never takes the place
//     of {id}: an allow rule then matches nothing, and a deny rule matches
//     every topic, because a deny that cannot be spelled out must still deny.
//   - A name that came from a user or a certificate cannot pose as a link, a
//     device, a role or the gateway itself: it is made of letters, digits,
//     '.', '_' and '-' only, and is not "gateway".
//   - Passwords are kept as argon2id hashes in one file of mode 0600, and are
//     never printed, logged or compared other than in constant time.
//   - Every table here is bounded. What a stranger sends costs no memory that
//     outlives the answer, and at most two password checks run at once.
//
// It never reads the network, never stores a clear password and has no setting
// that lets everybody in.
package access
