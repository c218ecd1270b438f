package config

import (
	"errors"

	"github.com/headgate-io/headgate/southbound/modbus"
)

func (b *builder) buses() {
	b.config.Buses = make(map[string]Bus, len(b.file.buses.entries))
	seen := make(unique)
	for _, e := range b.file.buses.entries {
		bus := b.bus(e.item)
		if e.item.url.good() && seen.add(b, "url", bus.URL, e.item.url.at) && e.item.read() {
			b.checkBus(e.item, bus)
		}
		b.config.Buses[e.name] = bus
	}
}

func (b *builder) bus(f *fileBus) Bus {
	bus := Bus{
		BusConfig: modbus.BusConfig{
			URL: f.url.v, Backup: f.backup.v, Connections: int(f.connections.v), ConnectTimeout: f.connectTimeout.v,
			ResponseTimeout: f.responseTimeout.v, LateWindow: f.lateWindow.v, Gap: f.gap.v, PauseAfterConnect: f.pauseAfterConnect.v, MaxDeadTime: f.maxDeadTime.v,
			Serial: modbus.Serial{Baud: int(f.baud.v), DataBits: int(f.dataBits.v), Parity: f.parity.v, StopBits: int(f.stopBits.v)},
			Echo:   f.echo.v,
		},
		CA: f.ca.v, Certificate: f.certificate.v, Key: f.key.v,
	}
	if f.rs485.v == "high" || f.rs485.v == "low" {
		bus.Serial.RS485 = &modbus.RS485{SendLow: f.rs485.v == "low", Before: f.rs485Before.v, After: f.rs485After.v, HearsSelf: f.echo.v}
	}
	return bus
}

// read reports whether what was written could be read.
func (f *fileBus) read() bool {
	for _, n := range []*whole{&f.connections, &f.baud, &f.dataBits, &f.stopBits} {
		if n.set && !n.has {
			return false
		}
	}
	return !f.parity.set || f.parity.has
}

func (b *builder) checkBus(f *fileBus, bus Bus) {
	places := map[string]place{
		"url": f.url.at, "backup": f.backup.at, "connections": f.connections.at, "baud": f.baud.at,
		"data_bits": f.dataBits.at, "parity": f.parity.at, "stop_bits": f.stopBits.at, "echo": f.echo.at, "rs485": f.rs485.at,
	}
	var e *modbus.ConfigError
	if err := modbus.CheckBus(bus.BusConfig); errors.As(err, &e) {
		b.rep.add(places[e.Key], e.Fix, "%s", e.Problem)
		return
	}
	secure := modbus.NeedsTLS(bus.URL)
	for _, k := range []struct {
		name string
		path *filePath
	}{{"ca", &f.ca}, {"certificate", &f.certificate}, {"key", &f.key}} {
		switch {
		case secure && f.lacks(k.name, k.path):
			b.rep.add(f.url.at, "add "+k.name+": and the path of a PEM file", "tls:// without %s: both ends prove who they are", k.name)
		case !secure && k.path.set:
			b.rep.add(k.path.at, "remove it, or write tls://", "%s has no meaning without tls://", k.name)
		}
	}
}
