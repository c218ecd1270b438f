package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const meterProfile = `kind: profile
name: meter
title: A meter
protocol: modbus
order: CDAB
max_registers: 60
groups:
  fast: {interval: 1s}
  slow: {interval: 60s}
tags:
  u: {group: fast, address: "holding:0", type: float32, unit: V}
  p: {group: fast, address: "holding:2", type: float32, unit: W}
  e: {group: slow, address: "holding:4", type: uint32, access: rw, max: 10, interlock: {tag: u, equals: 1}}
`

// loadWith loads a configuration with one device, beside which files lie.
func loadWith(t *testing.T, device string, files map[string]string) (*Config, error) {
	t.Helper()
	dir := t.TempDir()
	files["headgate.yaml"] = fmt.Sprintf("version: 1\ngateway: {id: g, profiles: shipped}\nbuses:\n  b: {url: \"tcp://192.0.2.1\"}\ndevices:\n  - {id: d, adapter: modbus, bus: b, unit: 1, %s}\n", device)
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Load(filepath.Join(dir, "headgate.yaml"))
}

func TestProfile(t *testing.T) {
	cfg, err := loadWith(t, "profile: meter, writes: allow, groups: {fast: {interval: 5s}}, tags: {p: {unit: kW, scale: 0.001}, own: {group: slow, address: \"input:9\", type: int16}}",
		map[string]string{"shipped/meter.yaml": meterProfile})
	if err != nil {
		t.Fatal(err)
	}
	d := cfg.Devices[0]
	got := fmt.Sprintf("%v %v %d", d.Groups["fast"].Interval, d.Groups["slow"].Interval, d.MaxRegisters)
	for _, tag := range d.Tags {
		got += fmt.Sprintf("; %s %s %d %s %s %s", tag.Name, tag.Group, tag.Address, tag.Type, tag.Order, tag.Unit)
	}
	want := "5s 1m0s 60; u fast 0 float32 CDAB V; p fast 2 float32 CDAB kW; e slow 4 uint32 CDAB ; own slow 9 int16 CDAB "
	if got != want {
		t.Errorf("the device is\n%s, want\n%s", got, want)
	}
	if d.Tags[1].Scale == nil || *d.Tags[1].Scale != 0.001 || *d.Writable["e"].Max != 10 || d.Writable["e"].Interlock.Tag != "u" {
		t.Errorf("p is scaled by %v, e may be written %+v", d.Tags[1].Scale, d.Writable["e"])
	}
	again := filepath.Join(t.TempDir(), "headgate.yaml")
	if err := os.WriteFile(again, []byte(strings.Replace(cfg.Show(), "    profile: meter\n", "", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	shown, err := Load(again)
	if err != nil || !reflect.DeepEqual(shown.Devices[0], d) {
		t.Errorf("what is shown is another device: %v\n%+v\n%+v", err, shown, d)
	}
}

func TestOwnProfileGoesFirst(t *testing.T) {
	own := strings.Replace(meterProfile, "holding:0", "input:7", 1)
	cfg, err := loadWith(t, "profile: meter", map[string]string{"shipped/meter.yaml": meterProfile, "profiles.d/meter.yaml": own})
	if err != nil || cfg.Devices[0].Tags[0].Address != 7 {
		t.Errorf("%v, %+v", err, cfg)
	}
}

func TestWrongProfiles(t *testing.T) {
	for _, tt := range []struct{ device, name, profile, want string }{
		{"profile: metre", "meter", meterProfile, `headgate.yaml:6:56: unknown profile "metre" (did you mean "meter"?)`},
		{"profile: ../meter", "meter", meterProfile, `"../meter" is not a name`},
		{"profile: meter", "meter", strings.Replace(meterProfile, "name: meter", "name: other", 1), `meter.yaml:2:7: profile "other" in the file of "meter"`},
		{"profile: meter", "meter", strings.Replace(meterProfile, "kind: profile\n", "", 1), "kind is missing"},
		{"profile: meter", "meter", strings.Replace(meterProfile, "type: uint32", "type: uint33", 1), `meter.yaml:13:48: type "uint33" is unknown`},
		{"profile: meter", "meter", strings.Replace(meterProfile, "order:", "unit: 3\norder:", 1), `meter.yaml:5:1: unknown key "unit"`},
		{"profile: meter", "meter", "a: [", "not YAML"},
		{"profile: meter, groups: {fast: {interval: 1}}", "meter", meterProfile, "without a unit"},
	} {
		_, err := loadWith(t, tt.device, map[string]string{"shipped/" + tt.name + ".yaml": tt.profile})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.device, err, tt.want)
		}
	}
}
