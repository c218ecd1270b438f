package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/headgate-io/headgate/gateway/client"
	"github.com/spf13/cobra"
)

// maxLine bounds a message that is a line of standard input.
const maxLine = 1 << 20

type publication struct {
	topic, message, file string
	lines, stdin, null   bool
	qos                  int
	retain               bool
}

func pubCommand() *cobra.Command {
	var p publication
	cmd := &cobra.Command{
		Use:   "pub -t TOPIC -m MESSAGE",
		Short: "Publish a message, with mosquitto_pub's flags",
		Args:  args(cobra.NoArgs),
	}
	conn := connectionFlags(cmd)
	f := cmd.Flags()
	f.StringVarP(&p.topic, "topic", "t", "", "topic")
	f.StringVarP(&p.message, "message", "m", "", "message")
	f.StringVarP(&p.file, "file", "f", "", "send a file as one message")
	f.BoolVarP(&p.lines, "stdin-line", "l", false, "send each line of standard input")
	f.BoolVarP(&p.stdin, "stdin-file", "s", false, "send standard input as one message")
	f.BoolVarP(&p.null, "null-message", "n", false, "send an empty message")
	f.IntVarP(&p.qos, "qos", "q", 0, "0, 1 or 2")
	f.BoolVarP(&p.retain, "retain", "r", false, "retain the message")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := p.check(cmd); err != nil {
			return err
		}
		cl, err := conn.dial(cmd.Context(), client.Options{CleanStart: true})
		if err != nil {
			return err
		}
		if err := p.send(cmd, cl); err != nil {
			cl.Disconnect()
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("%w: the broker closed the connection; MQTT 3.1.1 has no other way to refuse, so look at its rules", err)
			}
			return err
		}
		return cl.Disconnect()
	}
	return cmd
}

func (p *publication) check(cmd *cobra.Command) error {
	sources := 0
	for _, given := range []bool{cmd.Flags().Changed("message"), p.file != "", p.lines, p.stdin, p.null} {
		if given {
			sources++
		}
	}
	switch {
	case p.topic == "":
		return usageError{errors.New("say where to: -t TOPIC")}
	case sources != 1:
		return usageError{errors.New("say what, in one way: -m MESSAGE, -f FILE, -l, -s or -n")}
	case p.qos < 0 || p.qos > 2:
		return usageError{errors.New("-q is 0, 1 or 2")}
	}
	return nil
}

func (p *publication) send(cmd *cobra.Command, cl *client.Client) error {
	one := func(payload []byte) error {
		err := cl.Publish(cmd.Context(), client.Message{Topic: p.topic, Payload: payload, QoS: byte(p.qos), Retain: p.retain})
		if err != nil {
			return fmt.Errorf("publish to %s: %w", p.topic, err)
		}
		return nil
	}
	switch {
	case p.lines:
		lines := bufio.NewScanner(cmd.InOrStdin())
		lines.Buffer(nil, maxLine)
		for lines.Scan() {
			if err := one(lines.Bytes()); err != nil {
				return err
			}
		}
		return lines.Err()
	case p.stdin:
		payload, err := io.ReadAll(cmd.InOrStdin())
		if err != nil {
			return err
		}
		return one(payload)
	case p.file != "":
		payload, err := os.ReadFile(p.file)
		if err != nil {
			return err
		}
		return one(payload)
	}
	return one([]byte(p.message))
}
