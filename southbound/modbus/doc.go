// Package modbus reads devices that speak Modbus, over TCP, TLS and UDP, and in
// RTU and ASCII on serial ports and behind converters.
//
// A Bus is one endpoint: a device, a gateway or a line with many units. It has
// one connection and one request in flight unless told otherwise, shared by all
// its units, since cheap gateways mix up more (Modbus Messaging on TCP/IP,
// 4.2.2). An adapter reads one unit of it.
//
// What the package keeps, whatever the peer does:
//
//   - A value is only ever decoded from the answer to its own request. Where
//     requests are numbered, answers to those that timed out are recognised and
//     thrown away, and anything else that is unexpected (protocol identifier,
//     length, unit, function, byte count, a number never used) closes the
//     connection. Where they are not, nothing is asked before the line was
//     silent, and no unit while an earlier answer of it may still come.
//
//   - A timeout costs one unit its values and nobody their connection. A
//     broken connection is replaced once within a request, then ends the
//     session.
//
//   - A unit that does not answer holds the bus for one response timeout, and
//     less and less often.
//
//   - A value is written as it reads back, or not at all, and sent once: what
//     became of a request that got no answer, only the device can say.
//
// The codec of the protocol data unit is goburrow/modbus; its transports are
// not used.
package modbus
