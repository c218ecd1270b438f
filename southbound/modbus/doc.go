// Package modbus reads devices that speak Modbus TCP.
//
// A Bus is one endpoint: a device, or a gateway with many units behind it. It
// has one connection and one request in flight, shared by all its units, since
// cheap gateways mix up more (Modbus Messaging on TCP/IP, 4.2.2). An adapter
// reads one unit of it.
//
// What the package keeps, whatever the peer does:
//
//   - A value is only ever decoded from the answer to its own request. Answers
//     to requests that timed out are recognised by their transaction
//     identifier and thrown away; anything else that is unexpected (protocol
//     identifier, length, unit, function, byte count, an identifier never
//     used) closes the connection.
//   - A timeout costs one unit its values and nobody their connection. A
//     broken connection is replaced once within a request, then ends the
//     session.
//   - A unit that does not answer holds the bus for one response timeout, and
//     less and less often.
//
// The codec of the protocol data unit is goburrow/modbus; its transports are
// not used. Serial lines, TLS, bits, strings and writing are not here yet.
package modbus
