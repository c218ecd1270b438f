package main

import (
	"fmt"
	"strings"

	"github.com/headgate-io/headgate/gateway"
	"github.com/headgate-io/headgate/gateway/access"
	"github.com/spf13/cobra"
)

func accessCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "access", Short: "Who may publish and subscribe to what"}
	path := configFlag(cmd)
	cmd.AddCommand(accessExplain(path), accessImport())
	return cmd
}

func accessExplain(path *string) *cobra.Command {
	var asJSON, certificate bool
	cmd := &cobra.Command{
		Use:   "explain WHO ACTION TOPIC",
		Short: "Tell which rule decides, and why",
		Long: `Says whether WHO (a user, a client with a certificate, link:NAME or device:NAME)
may publish or subscribe to TOPIC, and which rule decides. It looks at the
configuration and the users on disk; the running gateway is not asked.
Exits with 0: allowed, 1: refused.`,
		Example: `  headgate access explain press-1 publish plant/press-1/temp
  headgate access explain link:cloud subscribe 'plant/#'`,
		Args: args(cobra.ExactArgs(3)),
	}
	cmd.Flags().BoolVar(&certificate, "certificate", false, "WHO comes with a certificate and no password, even if there is a user of that name")
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(cmd *cobra.Command, of []string) error {
		action := access.Publish
		switch of[1] {
		case access.Publish.String():
		case access.Subscribe.String():
			action = access.Subscribe
		default:
			return usageError{fmt.Errorf("ACTION is publish or subscribe, not %q", of[1])}
		}
		cfg, err := loadConfig(*path)
		if err != nil {
			return err
		}
		e, err := gateway.ExplainAccess(cfg, of[0], certificate, action, of[2])
		if err != nil {
			return err
		}
		if asJSON {
			err = printJSON(cmd.OutOrStdout(), e)
		} else {
			printExplanation(cmd, *path, e)
		}
		if err == nil && !e.Allowed {
			return errToldAlready
		}
		return err
	}
	return cmd
}

func printExplanation(cmd *cobra.Command, path string, e gateway.Explanation) {
	out := cmd.OutOrStdout()
	verdict := "refused"
	if e.Allowed {
		verdict = "allowed"
	}
	fmt.Fprintf(out, "%s: %s %s %s\n", verdict, e.Who, e.Action, e.Topic)
	switch e.Rule {
	case "":
		fmt.Fprintln(out, e.Why)
	case "built in":
		fmt.Fprintln(out, "a built-in rule", e.Why)
	default:
		fmt.Fprintf(out, "the rule at %s %s\n", e.Rule, e.Why)
	}
	who := "a " + e.Known
	if e.Known == "certificate" {
		who = "taken for a client with a certificate"
	}
	if len(e.Roles) > 0 {
		who += ", roles " + strings.Join(e.Roles, ", ")
	}
	fmt.Fprintf(out, "%s is %s\n", e.Who, who)
	fmt.Fprintf(out, "read from %s and the users on disk; the running gateway was not asked\n", configPath(path))
}
