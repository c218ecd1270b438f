package gateway

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/config"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/gateway/pki"
	"github.com/headgate-io/headgate/southbound/modbus"
	"github.com/headgate-io/headgate/southbound/plugin"
)

// Check looks at what a configuration points to without changing anything:
// the data folder with its users, certificates, keys and plugins. Its errors
// keep the gateway from starting, or a link from coming up.
func Check(cfg *config.Config) []error {
	errs := checkData(cfg)
	for _, l := range cfg.Broker.Listeners {
		if l.Plaintext || needsFirstKeys(cfg, l) {
			continue
		}
		if _, err := pki.Server(serverFiles(l))(); err != nil {
			errs = append(errs, fmt.Errorf("listener %s: %w", l.Address, err))
		}
	}
	for _, l := range cfg.Northbound {
		if err := checkLink(l); err != nil {
			errs = append(errs, fmt.Errorf("link %s: %w", l.Name, err))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Buses)) {
		b := cfg.Buses[name]
		if !modbus.NeedsTLS(b.URL) {
			continue
		}
		if _, err := pki.Client(busFiles(b))("device"); err != nil {
			errs = append(errs, fmt.Errorf("bus %s: %w", name, err))
		}
	}
	for name, load := range busLoads(cfg) {
		if load > 1 {
			errs = append(errs, fmt.Errorf("bus %s needs %.2f s for each second: %s", name, load, lessLoad))
		}
	}
	for _, d := range cfg.Devices {
		if d.Adapter == builtInAdapter {
			continue
		}
		if _, err := plugin.Find(cfg.Gateway.Plugins, d.Adapter); err != nil {
			errs = append(errs, fmt.Errorf("device %s: %w", d.ID, err))
		}
	}
	return errs
}

// checkLink takes a certificate that is not there for the first one of a link
// that asks for it itself.
func checkLink(l config.Link) error {
	files := LinkFiles(l)
	if l.Renew != nil {
		if err := writable(filepath.Dir(l.Certificate)); err != nil {
			return err
		}
		if _, err := os.Stat(l.Certificate); errors.Is(err, fs.ErrNotExist) && (l.Renew.EST == nil || l.Renew.EST.Credentials != "") {
			files.Certificate, files.Key = "", ""
		}
	}
	return pki.NewCredentials(files).Check()
}

// writable looks at the folder that renewed certificates go to.
func writable(dir string) error {
	const writeAndSearch = 3
	if err := syscall.Access(dir, writeAndSearch); err != nil {
		return fmt.Errorf("the folder of the certificate cannot be written, so it cannot be renewed: %s: %w; keep it below gateway.data", dir, err)
	}
	return nil
}

// checkData takes a data folder that is not there for one of a gateway that
// starts for the first time.
func checkData(cfg *config.Config) []error {
	var errs []error
	if _, err := ownIdentity(cfg); err != nil {
		errs = append(errs, err)
	}
	if _, err := queueKey(cfg, true, true); err != nil {
		errs = append(errs, err)
	}
	if _, err := access.OpenUsers(UsersFile(cfg), nil); err != nil {
		errs = append(errs, err)
	}
	return errs
}

// Warnings tells what is allowed and yet hardly meant: a send route that no
// rule lets anything pass through, or a rule that never decides.
func Warnings(cfg *config.Config) []string {
	var out []string
	shadowed := access.Shadowed(cfg.Access.Rules)
	for _, i := range slices.Sorted(maps.Keys(shadowed)) {
		out = append(out, fmt.Sprintf("the rule at %s never decides: what it speaks of is decided before it, by the one at %s for instance; move it up or remove it",
			cfg.RulePlace(i), cfg.RulePlace(shadowed[i])))
	}
	for _, l := range cfg.Northbound {
		if l.SessionExpiry == 0 && slices.ContainsFunc(l.Send, func(r config.Route) bool { return r.QoS == 2 }) {
			out = append(out, fmt.Sprintf("link %s sends with qos: 2, but its session ends with each connection (session_expiry: 0): messages are repeated after link losses; set session_expiry: 1d, or qos: 1", l.Name))
		}
		for _, r := range l.Send {
			for _, filter := range r.Topics {
				if !mayCarry(cfg.Access.Rules, "link:"+l.Name, filter) {
					out = append(out, fmt.Sprintf("link %s sends %s, but no rule lets any of it leave: add {allow: subscribe, who: \"link:%[1]s\", topics: [%q]} to access.rules",
						l.Name, filter, filter))
				}
			}
		}
	}
	out = append(out, openToWrites(cfg)...)
	for name, load := range busLoads(cfg) {
		if load > 0.7 && load <= 1 {
			out = append(out, fmt.Sprintf("bus %s is busy for %.0f %% of its time, and has little left for units that do not answer: %s", name, 100*load, lessLoad))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Buses)) {
		if warning := warnOfPort(name, modbus.SerialPort(cfg.Buses[name].URL)); warning != "" {
			out = append(out, warning)
		}
	}
	return out
}

// openToWrites tells of rules that let commands through to a device without
// naming them: they were written for messages, perhaps.
func openToWrites(cfg *config.Config) (out []string) {
	for i, r := range cfg.Access.Rules {
		if !r.Allow || !slices.Contains(r.Actions, access.Publish) {
			continue
		}
		for _, d := range cfg.Devices {
			command := deviceHome(cfg, d.ID) + commandSuffix
			at := slices.IndexFunc(r.Topics, func(topic string) bool { return !strings.Contains(topic, "/cmd/") && mqtt.Match(topic, command) })
			if d.Writes && at >= 0 {
				out = append(out, fmt.Sprintf("the rule at %s lets %s write to device %s, by %s; if that is meant, name %s in a rule of its own, else narrow this one",
					cfg.RulePlace(i), r.Who, d.ID, r.Topics[at], command))
				break
			}
		}
	}
	return out
}

const lessLoad = "make intervals longer, baud higher, or move devices to another bus"

// busLoads gives the share of time that each serial bus is busy, in the order
// of their names.
func busLoads(cfg *config.Config) iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		for _, name := range slices.Sorted(maps.Keys(cfg.Buses)) {
			var devices []modbus.DeviceConfig
			for _, d := range cfg.Devices {
				if d.Adapter == builtInAdapter && d.Bus == name {
					devices = append(devices, d.Modbus())
				}
			}
			bus := cfg.Buses[name].BusConfig
			bus.TLS = pki.Client(busFiles(cfg.Buses[name]))
			load, err := modbus.Load(bus, devices)
			if err == nil && !yield(name, load) { // whoever opens the devices says the error
				return
			}
		}
	}
}

const portNames = "/dev/serial/by-id"

// warnOfPort tells of a serial port that is not there, or whose name may be
// another's after a restart.
func warnOfPort(bus, path string) string {
	if path == "" {
		return ""
	}
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Sprintf("bus %s: %v; plug the adapter in, or see ls %s", bus, err, portNames)
	}
	if target != path || !strings.HasPrefix(path, "/dev/tty") {
		return ""
	}
	names, err := filepath.Glob(portNames + "/*")
	if err != nil {
		return ""
	}
	for _, name := range names {
		if to, err := filepath.EvalSymlinks(name); err == nil && to == target {
			return fmt.Sprintf("bus %s: %s may be another port after a restart; write %s", bus, path, name)
		}
	}
	return ""
}

// mayCarry reports whether an allow rule for who shares a topic with filter.
func mayCarry(rules []access.Rule, who, filter string) bool {
	for _, r := range rules {
		if !r.Allow || !slices.Contains(r.Actions, access.Subscribe) || r.Who != who && r.Who != "*" && r.Who != "link:*" {
			continue
		}
		for _, topic := range r.Topics {
			if mqtt.Overlap(topic, filter) {
				return true
			}
		}
	}
	return false
}

// needsFirstKeys reports whether the listener's keys are made by the first
// start: they are to lie in the data folder, and nothing does yet.
func needsFirstKeys(cfg *config.Config, l config.Listener) bool {
	dir := filepath.Join(cfg.Gateway.Data, "pki")
	if l.Certificate != filepath.Join(dir, pki.BrokerCertificate) || l.Key != filepath.Join(dir, pki.BrokerKey) {
		return false
	}
	_, err := os.Stat(dir)
	return errors.Is(err, fs.ErrNotExist)
}
