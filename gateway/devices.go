package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/config"
	"github.com/headgate-io/headgate/gateway/pki"
	"github.com/headgate-io/headgate/southbound"
	"github.com/headgate-io/headgate/southbound/modbus"
	"github.com/headgate-io/headgate/southbound/plugin"
	"github.com/headgate-io/headgate/storequeue"
)

// busSpread is over how long the beats of all buses are spread: enough for polls
// to be on time, and little, since what arrives together is one commit.
const busSpread = 200 * time.Millisecond

// openDevices makes a loop around each configured adapter.
func (g *Gateway) openDevices() error {
	g.buses = map[string]*modbus.Bus{}
	for i, name := range slices.Sorted(maps.Keys(g.cfg.Buses)) {
		b := g.cfg.Buses[name]
		cfg := b.BusConfig
		cfg.Offset = time.Duration(i) * busSpread / time.Duration(len(g.cfg.Buses))
		cfg.TLS = pki.Client(busFiles(b))
		bus, err := modbus.NewBus(cfg)
		if err != nil {
			return fmt.Errorf("%w: bus %s: %w", ErrSetup, name, err)
		}
		g.buses[name] = bus
	}
	for _, cfg := range g.cfg.Devices {
		adapter, err := g.adapter(&cfg)
		if err != nil {
			return fmt.Errorf("%w: device %s: %w", ErrSetup, cfg.ID, err)
		}
		g.devices = append(g.devices, &southbound.Device{
			Gateway: g.cfg.Gateway.ID, ID: cfg.ID, Adapter: adapter,
			Publish:  g.publisher(access.Identity{Name: "device:" + cfg.ID}),
			Logger:   g.log,
			Writable: mayWrite(cfg),
			Report:   cfg.Report, LazyErrors: cfg.LazyErrors, StaleAfter: staleAfter(cfg.Groups),
			TagTopic: cfg.Telemetry.TagTopic, RetainTag: cfg.Telemetry.Retain, CBOR: cfg.Telemetry.CBOR,
			Late: g.latency.Polled.Observe,
		})
	}
	return g.openCommands()
}

func staleAfter(groups map[string]config.Group) map[string]time.Duration {
	after := make(map[string]time.Duration, len(groups))
	for name, g := range groups {
		after[name] = g.StaleAfter
	}
	return after
}

// mayWrite says which tags of a device commands may write. Which ones a plugin
// lets be written is its own affair.
func mayWrite(cfg config.Device) func(string) (southbound.Writable, bool) {
	switch {
	case !cfg.Writes:
		return nil
	case cfg.Adapter == builtInAdapter:
		return func(tag string) (southbound.Writable, bool) { w, ok := cfg.Writable[tag]; return w, ok }
	}
	return func(string) (southbound.Writable, bool) { return southbound.Writable{}, true }
}

func busFiles(b config.Bus) pki.ClientFiles {
	return pki.ClientFiles{CA: b.CA, Certificate: b.Certificate, Key: b.Key}
}

const builtInAdapter = "modbus"

// adapter names every kind of adapter there is: Modbus is built in, any other
// name is a plugin.
func (g *Gateway) adapter(cfg *config.Device) (southbound.Adapter, error) {
	if cfg.Adapter == builtInAdapter {
		return g.buses[cfg.Bus].Adapter(cfg.Modbus())
	}
	path, err := plugin.Find(g.cfg.Gateway.Plugins, cfg.Adapter)
	if err != nil {
		return nil, err
	}
	settings := cfg.Settings
	if settings == nil {
		settings = json.RawMessage("{}")
	}
	return plugin.New(plugin.Config{Path: path, Device: cfg.ID, Settings: settings, RuntimeDir: g.runtime, Logger: g.log}), nil
}

// holes is what was found not to exist between a device's tags, as its
// configuration would have it; empty: nothing.
func holes(cfg *config.Device, a southbound.Adapter) string {
	finder, ok := a.(interface{ Holes() []modbus.Hole })
	if !ok {
		return ""
	}
	var all []string
	for _, h := range finder.Holes() {
		all = append(all, fmt.Sprintf("{table: %s, from: %d, to: %d}", h.Table, h.From+cfg.AddressBase, h.To+cfg.AddressBase))
	}
	if all == nil {
		return ""
	}
	return "holes: [" + strings.Join(all, ", ") + "]"
}

// publisher lets a device publish under its own name, through the same rules
// and the same queue as everybody.
func (g *Gateway) publisher(who access.Identity) southbound.Publish {
	return func(ctx context.Context, m southbound.Message) error {
		contentType := "application/json"
		if m.CBOR {
			contentType = "application/cbor"
		}
		err := g.broker.Publish(ctx, who, storequeue.Message{
			Topic: m.Topic, Payload: m.Payload, QoS: 1, Retain: m.Retain, Text: !m.CBOR, ContentType: contentType,
		})
		if err == nil {
			g.published.Add(1)
		}
		return err
	}
}
