package main

import (
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/headgate-io/headgate/gateway"
	"github.com/headgate-io/headgate/gateway/admin"
	"github.com/headgate-io/headgate/southbound/modbus"
	"github.com/spf13/cobra"
)

func modbusTrace() *cobra.Command {
	var c busChoice
	var tags tagChoice
	var interval time.Duration
	var most int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "trace NAME | trace URL ADDRESS...",
		Short: "Show the frames on a bus as they go",
		Long: `With the NAME of a bus or a device in the configuration, shows the frames of the
running gateway, for root and the gateway's own user. With a URL, reads the addresses
at each --interval and shows the frames of that. Ends with Ctrl-C.`,
		Example: `  headgate modbus trace line-3
  headgate modbus trace boiler --pcap boiler.pcap
  headgate modbus trace tcp://192.0.2.10 --unit 7 holding:0 --type 'uint16[10]'`,
		Args: args(cobra.MinimumNArgs(1)),
	}
	path := configFlag(cmd)
	c.flags(cmd)
	c.unitFlag(cmd)
	tags.flags(cmd)
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "with a URL: how often to read")
	cmd.Flags().IntVarP(&most, "number", "n", 0, "end after so many frames; 0: never")
	jsonFlag(cmd, &asJSON)
	cmd.Flags().Lookup("json").Usage = "print a JSON object a line, with stable names"
	if err := cmd.Flags().MarkHidden("trace"); err != nil {
		panic(err) // it is a flag of this command
	}
	cmd.RunE = func(cmd *cobra.Command, of []string) error {
		show := frameShower(cmd, asJSON)
		if !strings.Contains(of[0], "://") {
			return c.traceGateway(cmd, *path, of, tracing{show, most})
		}
		if len(of) < 2 {
			return usageError{errors.New("name an address to read, or, instead of the URL, a bus of the running gateway")}
		}
		device := deviceOf(c.unit)
		device.Groups[0].Interval = max(interval, 10*time.Millisecond)
		for _, text := range of[1:] {
			tag, err := tags.tag(text)
			if err != nil {
				return err
			}
			device.Tags = append(device.Tags, tag)
		}
		return c.traceURL(cmd, of[0], device, tracing{show, most})
	}
	return cmd
}

type tracing struct {
	show func(modbus.Frame)
	most int
}

var errShown = errors.New("as many as were asked for")

// each shows a frame, until there are enough.
func (t *tracing) each(f modbus.Frame) error {
	t.show(f)
	if t.most--; t.most == 0 {
		return errShown
	}
	return nil
}

func frameShower(cmd *cobra.Command, asJSON bool) func(modbus.Frame) {
	if !asJSON {
		return frameLines(cmd.OutOrStdout())
	}
	enc := json.NewEncoder(cmd.OutOrStdout())
	enc.SetEscapeHTML(false)
	return func(f modbus.Frame) {
		_ = enc.Encode(struct { // who read it may have gone
			admin.Frame
			Text string `json:"text"`
		}{gateway.AdminFrame(f), f.String()})
	}
}

func (c *busChoice) traceURL(cmd *cobra.Command, url string, device modbus.DeviceConfig, t tracing) error {
	frames := make(chan modbus.Frame, 1000)
	return c.withBus(cmd, url, func(bus *modbus.Bus) error {
		defer bus.Watch(func(f modbus.Frame) {
			select {
			case frames <- f:
			default: // who reads is too slow
			}
		})()
		adapter, err := bus.Adapter(device)
		if err != nil {
			return usageError{err}
		}
		s, err := adapter.Open(cmd.Context())
		if err != nil {
			return err
		}
		for {
			_, err := s.Read(cmd.Context())
			for len(frames) > 0 {
				if t.each(<-frames) != nil {
					return s.Close()
				}
			}
			if cmd.Context().Err() != nil {
				return s.Close()
			}
			if err != nil {
				return errors.Join(err, s.Close())
			}
		}
	})
}

func (c *busChoice) traceGateway(cmd *cobra.Command, path string, of []string, t tracing) (all error) {
	if len(of) > 1 {
		return usageError{errors.New("one bus or device at a time")}
	}
	cfg, err := loadConfig(path)
	if err != nil {
		return err
	}
	if c.pcap != "" {
		p, err := createPcap(c.pcap)
		if err != nil {
			return err
		}
		show := t.show
		t.show = func(f modbus.Frame) {
			p.frame(f)
			show(f)
		}
		defer func() { all = errors.Join(all, p.close()) }()
	}
	err = admin.Trace(cmd.Context(), gateway.Socket(cfg), of[0], func(f admin.Frame) error { return t.each(gateway.ModbusFrame(f)) })
	if errors.Is(err, errShown) || cmd.Context().Err() != nil {
		return nil
	}
	return err
}
