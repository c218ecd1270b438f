package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"os"

	"github.com/headgate-io/headgate/southbound/modbus"
)

// A pcapFile is frames in the format of libpcap, each as a packet of one TCP
// connection to port 502, whatever line they went over: so every program knows
// what they are. What was no frame is left out.
type pcapFile struct {
	file *os.File
	out  *bufio.Writer
	seq  [2]uint32 // of both ends
	err  error     // the first
}

const (
	rawIP      = 101 // link type: packets begin with their IP header
	ipHeader   = 20
	tcpHeader  = 20
	clientPort = 50502
	serverPort = 502
)

// createPcap begins a file, which close ends.
func createPcap(path string) (*pcapFile, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	p := &pcapFile{file: file, out: bufio.NewWriter(file)}
	head := binary.LittleEndian.AppendUint32(nil, 0xA1B2C3D4)
	head = binary.LittleEndian.AppendUint16(head, 2)
	head = binary.LittleEndian.AppendUint16(head, 4)
	head = append(head, make([]byte, 8)...)
	head = binary.LittleEndian.AppendUint32(head, 65535)
	head = binary.LittleEndian.AppendUint32(head, rawIP)
	p.write(head)
	return p, nil
}

// close tells the first error of all.
func (p *pcapFile) close() error {
	if p.err == nil {
		p.err = p.out.Flush()
	}
	return errors.Join(p.err, p.file.Close())
}

func (p *pcapFile) write(b []byte) {
	if p.err == nil {
		_, p.err = p.out.Write(b)
	}
}

func (p *pcapFile) frame(f modbus.Frame) {
	if f.Note != "" {
		return
	}
	adu := binary.BigEndian.AppendUint16(nil, f.Transaction)
	adu = append(adu, 0, 0)
	adu = binary.BigEndian.AppendUint16(adu, uint16(1+len(f.PDU)))
	adu = append(append(adu, f.Unit), f.PDU...)
	packet := p.packet(f.Sent, adu)
	head := binary.LittleEndian.AppendUint32(nil, uint32(f.Time.Unix()))
	head = binary.LittleEndian.AppendUint32(head, uint32(f.Time.Nanosecond()/1000))
	head = binary.LittleEndian.AppendUint32(head, uint32(len(packet)))
	head = binary.LittleEndian.AppendUint32(head, uint32(len(packet)))
	p.write(append(head, packet...))
}

// packet puts IPv4 and TCP before the data, from or to 192.0.2.2 (RFC 5737).
func (p *pcapFile) packet(sent bool, data []byte) []byte {
	from, to := 0, 1
	ports := [2]uint16{clientPort, serverPort}
	if !sent {
		from, to = 1, 0
	}
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, byte(1 + from), 192, 0, 2, byte(1 + to)}
	binary.BigEndian.PutUint16(ip[2:], uint16(ipHeader+tcpHeader+len(data)))
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	tcp := binary.BigEndian.AppendUint16(nil, ports[from])
	tcp = binary.BigEndian.AppendUint16(tcp, ports[to])
	tcp = binary.BigEndian.AppendUint32(tcp, 1+p.seq[from])
	tcp = binary.BigEndian.AppendUint32(tcp, 1+p.seq[to])
	tcp = append(tcp, 0x50, 0x18, 0xFF, 0xFF, 0, 0, 0, 0)
	tcp = append(tcp, data...)
	pseudo := append([]byte{}, ip[12:20]...)
	pseudo = append(pseudo, 0, 6)
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(tcp)))
	binary.BigEndian.PutUint16(tcp[16:], checksum(append(pseudo, tcp...)))
	p.seq[from] += uint32(len(data))
	return append(ip, tcp...)
}

// checksum is that of IP and TCP (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xFFFF {
		sum = sum>>16 + sum&0xFFFF
	}
	return ^uint16(sum)
}
