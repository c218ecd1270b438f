package main

import (
	"fmt"
	"io"

	"github.com/headgate-io/headgate/gateway"
	"github.com/spf13/cobra"
)

func routeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "route", Short: "What goes to the cloud and comes from it, under what name"}
	path := configFlag(cmd)
	cmd.AddCommand(routeExplain(path))
	return cmd
}

func routeExplain(path *string) *cobra.Command {
	var asJSON, fromCloud bool
	cmd := &cobra.Command{
		Use:   "explain TOPIC",
		Short: "Tell where a message goes, and which route and rule decide",
		Long: `Says for each link whether a message published here under TOPIC would leave, by
which route, under what name, at which QoS and in which lane, and which rule lets
it or does not. With --from-cloud, TOPIC is a name in the cloud, and it says what
would come in. It looks at the configuration; the running gateway is not asked.
Exits with 0: it passes on one link at least, 1: on none.`,
		Example: `  headgate route explain plant/press-1/temp
  headgate route explain --from-cloud sites/press-shop-3/cmd/start`,
		Args: args(cobra.ExactArgs(1)),
	}
	cmd.Flags().BoolVar(&fromCloud, "from-cloud", false, "TOPIC is a name in the cloud: tell what would come in")
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(cmd *cobra.Command, of []string) error {
		cfg, err := loadConfig(*path)
		if err != nil {
			return err
		}
		e, err := gateway.ExplainRoute(cfg, of[0], fromCloud)
		if err != nil {
			return usageError{err}
		}
		if asJSON {
			err = printJSON(cmd.OutOrStdout(), e)
		} else {
			printRoutes(cmd.OutOrStdout(), configPath(*path), e)
		}
		if err == nil && !e.Passes {
			return errToldAlready
		}
		return err
	}
	return cmd
}

func printRoutes(out io.Writer, path string, e gateway.RouteExplanation) {
	words := map[bool]string{true: "leaves", false: "stays here"}
	if e.FromCloud {
		words = map[bool]string{true: "comes in", false: "stays out"}
	}
	fmt.Fprintf(out, "%s: %s\n", words[e.Passes], e.Topic)
	if len(e.Links) == 0 {
		fmt.Fprintln(out, "there is no link; add one below northbound")
	}
	for _, s := range e.Links {
		printStep(out, "", s, words[s.Passes])
		for _, on := range s.Onward {
			printStep(out, "  ", on, "goes on")
		}
	}
	fmt.Fprintf(out, "read from %s; the running gateway was not asked\n", path)
}

func printStep(out io.Writer, indent string, s gateway.RouteStep, verdict string) {
	fmt.Fprintf(out, "%slink %s: %s", indent, s.Link, verdict)
	if s.Passes {
		fmt.Fprintf(out, " as %s, QoS %d at most, retained: %s", s.Name, s.QoS, s.Retain)
		if s.Lane != "" {
			fmt.Fprintf(out, ", lane %s", s.Lane)
		}
	}
	fmt.Fprintln(out)
	if s.Route != "" {
		fmt.Fprintf(out, "%s  the route at %s takes it\n", indent, s.Route)
	}
	if s.Rule != "" {
		fmt.Fprintf(out, "%s  the rule at %s %s\n", indent, s.Rule, s.Why)
	} else {
		fmt.Fprintf(out, "%s  %s\n", indent, s.Why)
	}
}
