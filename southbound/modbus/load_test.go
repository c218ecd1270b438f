package modbus

import (
	"math"
	"testing"
	"time"
)

// 125 registers a second at 9600 baud, by hand: 263 characters of 11 bits, two
// silences of 3.5 characters, 10 ms for the unit.
func TestLoad(t *testing.T) {
	device := registersAt(1, time.Second, 0, 124)
	device.MaxGap = 125
	want := (263+7)*11.0/9600 + 0.01
	for url, want := range map[string]float64{"rtu:///dev/ttyS0": want, "rtu+tcp://h": want, "tcp://h": 0} {
		cfg := BusConfig{URL: url}
		if want > 0 {
			cfg.Serial.Baud = 9600
		}
		got, err := Load(cfg, []DeviceConfig{device, device})
		if err != nil || math.Abs(got-2*want) > 1e-6 {
			t.Errorf("%s: %v, %v; want %v", url, got, err, 2*want)
		}
	}
	if got, err := Load(BusConfig{URL: "rtu+tcp://h"}, []DeviceConfig{device}); err != nil || got != 0 {
		t.Errorf("without baud: %v, %v", got, err)
	}
}
