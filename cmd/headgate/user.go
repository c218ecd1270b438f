package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/spf13/cobra"
)

func userCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Add, remove and list the users of the local broker",
		Long: `Users log in with a name and a password; what they may do is decided by their
roles and by the rules in the configuration. A running gateway takes changes
at once. Passwords come from the terminal or from standard input, never from
arguments, where every process could read them.`,
	}
	path := configFlag(cmd)
	cmd.AddCommand(userAdd(path), userRemove(path), userList(path), userPassword(path), userRoles(path),
		userSwitch(path, "disable", "Bar a user from logging in, and cut its sessions", true),
		userSwitch(path, "enable", "Let a disabled user log in again", false), userImport(path))
	return cmd
}

func userAdd(path *string) *cobra.Command {
	var roles []string
	var give credential
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a user",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			users, err := openUsers(*path)
			if err != nil {
				return err
			}
			err = give.to(cmd, names[0],
				func() (access.Secret, error) { return users.AddGenerated(names[0], roles) },
				func(password access.Secret) error { return users.Add(names[0], password, roles) })
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if give.generate {
				out = cmd.ErrOrStderr() // standard output is for the secret
			}
			fmt.Fprintf(out, "added %s\n", names[0])
			return warnOfNobody(cmd, *path, roles, names[0])
		},
	}
	rolesFlag(cmd, &roles)
	give.flags(cmd)
	return cmd
}

func rolesFlag(cmd *cobra.Command, roles *[]string) {
	cmd.Flags().StringSliceVar(roles, "role", nil, "roles, as the configuration's rules name them (repeat, or separate by commas)")
}

// warnOfNobody says which of these users no rule lets do anything.
func warnOfNobody(cmd *cobra.Command, path string, roles []string, names ...string) error {
	cfg, err := loadConfig(path)
	if err != nil {
		return err
	}
	rules, err := access.Compile(cfg.Access.Rules)
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return rules.Speaks(access.Identity{Name: name, Roles: roles}) })
	if len(names) > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: no rule allows %s anything: name it, or a role of it, under access.rules; a role is given with headgate user roles NAME ROLE\n",
			strings.Join(names, ", "))
	}
	return nil
}

func userRoles(path *string) *cobra.Command {
	return &cobra.Command{
		Use:   "roles NAME [ROLE...]",
		Short: "Give a user these roles instead of those it had",
		Args:  args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			users, err := openUsers(*path)
			if err != nil {
				return err
			}
			if err := users.SetRoles(names[0], names[1:]); err != nil {
				return err
			}
			return warnOfNobody(cmd, *path, names[1:], names[0])
		},
	}
}

func userSwitch(path *string, verb, short string, disabled bool) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " NAME",
		Short: short,
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, names []string) error {
			users, err := openUsers(*path)
			if err != nil {
				return err
			}
			return users.SetDisabled(names[0], disabled)
		},
	}
}

func userRemove(path *string) *cobra.Command {
	return &cobra.Command{
		Use:   "rm NAME",
		Short: "Remove a user",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			users, err := openUsers(*path)
			if err != nil {
				return err
			}
			if err := users.Remove(names[0]); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "removed %s\n", names[0])
			return nil
		},
	}
}

func userPassword(path *string) *cobra.Command {
	var give credential
	cmd := &cobra.Command{
		Use:   "passwd NAME",
		Short: "Give a user another password",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			users, err := openUsers(*path)
			if err != nil {
				return err
			}
			return give.to(cmd, names[0],
				func() (access.Secret, error) { return users.Generate(names[0]) },
				func(password access.Secret) error { return users.SetPassword(names[0], password) })
		},
	}
	give.flags(cmd)
	return cmd
}

func userList(path *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the users",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			users, err := openUsers(*path)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), users.List())
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, u := range users.List() {
				fmt.Fprintf(w, "%s\t%s", u.Name, strings.Join(u.Roles, ","))
				if u.Disabled {
					fmt.Fprint(w, "\tdisabled")
				}
				fmt.Fprintln(w)
			}
			return w.Flush()
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func openUsers(path string) (*access.Users, error) {
	cfg, err := loadConfig(path)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(cfg.Gateway.Data); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the data folder %s is not there yet: start the gateway once", cfg.Gateway.Data)
	}
	return access.OpenUsers(usersFile(cfg), nil)
}
