package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/headgate-io/headgate/southbound"
	"github.com/headgate-io/headgate/southbound/modbus"
	"github.com/spf13/cobra"
)

// A readTag is one line of read --json. Its names are stable.
type readTag struct {
	Address string    `json:"address"`
	Value   any       `json:"value"`
	Quality string    `json:"quality"`
	Time    time.Time `json:"time"`
}

func modbusRead() *cobra.Command {
	var c busChoice
	var tags tagChoice
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "read URL ADDRESS...",
		Short: "Read values from a device",
		Long: `Reads each ADDRESS, all in the same type: holding:10, input:10, coil:10 or
discrete:10, counted from 0; 40011 or 4x00011, counted from 1; a bit as holding:10.3.
Exits with 1 if one cannot be read.`,
		Example: `  headgate modbus read tcp://192.0.2.10 --unit 7 holding:10 --type int16 --scale 0.1
  headgate modbus read tcp://192.0.2.10 --type 'uint16[10]' 40001`,
		Args: args(cobra.MinimumNArgs(2)),
	}
	c.flags(cmd)
	c.unitFlag(cmd)
	tags.flags(cmd)
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(cmd *cobra.Command, of []string) error {
		device := deviceOf(c.unit)
		var names []string
		for _, text := range of[1:] {
			tag, err := tags.tag(text)
			if err != nil {
				return err
			}
			device.Tags = append(device.Tags, tag)
			names = append(names, modbus.Names(tag)...)
		}
		return c.withSession(cmd, of[0], device, func(s southbound.Session) error {
			readings, err := s.(southbound.Asker).Get(cmd.Context(), names)
			if err != nil {
				return err
			}
			return printReadings(cmd, readings, asJSON)
		})
	}
	return cmd
}

// withSession calls fn with a session of the device.
func (c *busChoice) withSession(cmd *cobra.Command, url string, device modbus.DeviceConfig, fn func(southbound.Session) error) error {
	return c.withBus(cmd, url, func(bus *modbus.Bus) error {
		adapter, err := bus.Adapter(device)
		if err != nil {
			return usageError{err}
		}
		s, err := adapter.Open(cmd.Context())
		if err != nil {
			return err
		}
		return errors.Join(fn(s), s.Close())
	})
}

func printReadings(cmd *cobra.Command, readings []southbound.Reading, asJSON bool) error {
	all, bad := []readTag{}, 0
	for _, r := range readings {
		if !r.Quality.HasValue() {
			bad++
		}
		all = append(all, readTag{r.Tag, r.Value, r.Quality.String(), r.Time})
		if !asJSON {
			fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", r.Tag, showReading(r))
		}
	}
	if asJSON {
		if err := printJSON(cmd.OutOrStdout(), all); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %s could not be read", bad, count(len(readings), "value"))
	}
	return nil
}

func showReading(r southbound.Reading) string {
	if r.Quality == southbound.Good {
		return fmt.Sprint(r.Value)
	}
	if r.Quality.HasValue() {
		return fmt.Sprintf("%v (%s)", r.Value, r.Quality)
	}
	return r.Quality.String()
}

func modbusWrite() *cobra.Command {
	var c busChoice
	var tags tagChoice
	var yes, asJSON, noVerify bool
	cmd := &cobra.Command{
		Use:   "write URL ADDRESS VALUE",
		Short: "Write a value to a device, and read it back",
		Long: `Writes a coil or holding registers, in any type. A value that the registers cannot
hold is refused, not rounded. It is sent once. A running gateway is not asked, and
no rule and no limit of a configuration applies. Exits with 1 unless the device
holds the value then.`,
		Example: `  headgate modbus write tcp://192.0.2.10 --unit 7 holding:20 --type int16 --scale 0.1 71.5
  headgate modbus write tcp://192.0.2.10 coil:3 true --yes
  headgate modbus write tcp://192.0.2.10 --type int16 --yes -- holding:20 -5`,
		Args: args(cobra.ExactArgs(3)),
	}
	c.flags(cmd)
	c.unitFlag(cmd)
	tags.flags(cmd)
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&noVerify, "no-verify", false, "do not read it back")
	cmd.RunE = func(cmd *cobra.Command, of []string) error {
		tag, err := tags.tag(of[1])
		if err != nil {
			return err
		}
		tag.Writable = true
		if err := modbus.CheckTag(tag); err != nil {
			return usageError{err}
		}
		return c.withSession(cmd, of[0], deviceOf(c.unit, tag), func(s southbound.Session) error {
			value, err := s.(southbound.Asker).Fit(tag.Name, parseValue(tag, of[2]))
			if err != nil {
				return usageError{err}
			}
			if err := sure(cmd, yes, fmt.Sprintf("write %v to %s of unit %d", value, tag.Name, c.unit)); err != nil {
				return err
			}
			return write(cmd, s, tag.Name, value, writeHow{noVerify, asJSON})
		})
	}
	return cmd
}

// A written tag is what write --json prints. Its names are stable.
type written struct {
	Address string            `json:"address"`
	State   southbound.Result `json:"state"`
	Reason  string            `json:"reason"`
	Old     any               `json:"old"`
	Value   any               `json:"value"`
	New     any               `json:"new"`
}

type writeHow struct{ noVerify, asJSON bool }

// parseValue takes text for what the tag's type is.
func parseValue(tag modbus.Tag, text string) any {
	switch tag.Type {
	case "string", "bytes", "time":
		return text
	}
	if v, err := strconv.ParseBool(text); err == nil && (tag.Type == "bool" || tag.Type == "bit") {
		return v
	}
	if v, err := strconv.ParseInt(text, 0, 64); err == nil {
		return v
	}
	if v, err := strconv.ParseUint(text, 0, 64); err == nil {
		return v
	}
	if v, err := strconv.ParseFloat(text, 64); err == nil {
		return v
	}
	return text
}

// write goes the way that a command takes through the gateway.
func write(cmd *cobra.Command, s southbound.Session, tag string, value any, how writeHow) error {
	o := southbound.WriteOnce(cmd.Context(), s, southbound.Command{ID: "1", Tag: tag, Value: value}, southbound.Writable{Unverified: how.noVerify})
	if how.asJSON {
		if err := printJSON(cmd.OutOrStdout(), written{tag, o.Result, o.Reason, o.Old, value, o.New}); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(cmd.OutOrStdout(), "%s  %s: %v -> %v\n", tag, o.Result, o.Old, value)
	}
	if o.Result != southbound.Done {
		return fmt.Errorf("%s: %s", o.Result, o.Reason)
	}
	return nil
}
