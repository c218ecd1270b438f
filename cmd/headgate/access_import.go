package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/spf13/cobra"
)

func accessImport() *cobra.Command {
	var file string
	var how access.ImportACL
	cmd := &cobra.Command{
		Use:   "import --mosquitto FILE",
		Short: "Make rules of a mosquitto acl_file, and print them",
		Long: `Prints access.rules that allow what the acl_file allows, or less: what they cannot
say is told in a comment. Write them to a file in conf.d beside the
configuration. Patterns are for the users with --role: give it to them with
headgate user import --role. A subscription is granted here if a rule covers all
of its filter, where mosquitto grants any and holds messages back.`,
		Args: args(cobra.NoArgs),
	}
	cmd.Flags().StringVar(&file, "mosquitto", "", "mosquitto's acl_file")
	cmd.Flags().StringVar(&how.Role, "role", "mosquitto", "role of the users that come from mosquitto")
	cmd.Flags().StringVar(&how.Anonymous, "anonymous-as", "", "identity of clients without credentials, as anonymous_as of a listener has it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if file == "" {
			return usageError{errors.New("name the acl_file with --mosquitto FILE")}
		}
		f, err := openFile(file)
		if err != nil {
			return err
		}
		defer f.Close()
		rules, refused := how.Read(f)
		tellRefused(cmd.ErrOrStderr(), file, refused)
		if len(refused) > 0 {
			return fmt.Errorf("%d lines of %s are wrong: correct them, as mosquitto would not take the file either", len(refused), file)
		}
		return printRules(cmd.OutOrStdout(), file, rules)
	}
	return cmd
}

// printRules writes a configuration.
func printRules(out io.Writer, file string, rules []access.ImportedRule) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Made of %q. The first rule that matches decides.\naccess:\n", file)
	if slices.ContainsFunc(rules, func(r access.ImportedRule) bool { return len(r.Rule.Topics) > 0 }) {
		b.WriteString("  rules:\n")
	} else {
		b.WriteString("  rules: []\n")
	}
	for _, r := range rules {
		if r.Note != "" {
			fmt.Fprintf(&b, "    # line %d: %q\n    #   %s\n", r.Line, r.Text, r.Note)
		}
		if len(r.Rule.Topics) == 0 {
			continue
		}
		verdict := "deny"
		if r.Rule.Allow {
			verdict = "allow"
		}
		var actions, topics []string
		for _, a := range r.Rule.Actions {
			actions = append(actions, a.String())
		}
		for _, t := range r.Rule.Topics {
			topics = append(topics, strconv.Quote(t))
		}
		fmt.Fprintf(&b, "    - {%s: [%s], who: %q, topics: [%s]} # line %d\n",
			verdict, strings.Join(actions, ", "), r.Rule.Who, strings.Join(topics, ", "), r.Line)
	}
	_, err := io.WriteString(out, b.String())
	return err
}
