package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/spf13/cobra"
	"golang.org/x/term"
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
	cmd.AddCommand(userAdd(path), userRemove(path), userList(path), userPassword(path))
	return cmd
}

func userAdd(path *string) *cobra.Command {
	var roles []string
	var stdin bool
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a user",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			users, password, err := usersAndPassword(cmd, *path, stdin)
			if err != nil {
				return err
			}
			if err := users.Add(names[0], password, roles); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "added %s\n", names[0])
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&roles, "role", nil, "roles, as the configuration's rules name them (repeat, or separate by commas)")
	passwordFlag(cmd, &stdin)
	return cmd
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
	var stdin bool
	cmd := &cobra.Command{
		Use:   "passwd NAME",
		Short: "Give a user another password",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			users, password, err := usersAndPassword(cmd, *path, stdin)
			if err != nil {
				return err
			}
			return users.SetPassword(names[0], password)
		},
	}
	passwordFlag(cmd, &stdin)
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
				fmt.Fprintf(w, "%s\t%s\n", u.Name, strings.Join(u.Roles, ","))
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

// usersAndPassword asks for the password only when there is a place for it.
func usersAndPassword(cmd *cobra.Command, path string, stdin bool) (*access.Users, access.Secret, error) {
	users, err := openUsers(path)
	if err != nil {
		return nil, nil, err
	}
	password, err := readPassword(cmd, stdin)
	return users, password, err
}

func passwordFlag(cmd *cobra.Command, stdin *bool) {
	cmd.Flags().BoolVar(stdin, "password-stdin", false, "read the password from standard input, one line")
}

const maxPassword = 1024

func readPassword(cmd *cobra.Command, stdin bool) (access.Secret, error) {
	fd := int(os.Stdin.Fd())
	if stdin || !term.IsTerminal(fd) {
		if !stdin {
			return nil, usageError{errors.New("there is no terminal to ask for the password: use --password-stdin")}
		}
		line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), maxPassword+2)).ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read password: %w", err)
		}
		return access.Secret(bytes.TrimRight(line, "\r\n")), nil
	}
	first, err := ask(cmd.Context(), fd, "Password: ")
	if err != nil {
		return nil, err
	}
	second, err := ask(cmd.Context(), fd, "Again: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, second) {
		return nil, errors.New("the two differ: try again")
	}
	return access.Secret(first), nil
}

// ask reads a line that the terminal does not show. A read of a terminal cannot
// be called off, so when ctx ends it is left behind with the process, and the
// terminal shows again what is typed.
func ask(ctx context.Context, fd int, prompt string) ([]byte, error) {
	before, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("read password: %w", err)
	}
	fmt.Fprint(os.Stderr, prompt)
	defer fmt.Fprintln(os.Stderr)
	type answer struct {
		line []byte
		err  error
	}
	answers := make(chan answer, 1)
	go func() { // ends with the line, or with the process
		line, err := term.ReadPassword(fd)
		answers <- answer{line, err}
	}()
	select {
	case a := <-answers:
		if a.err != nil {
			return nil, fmt.Errorf("read password: %w", a.err)
		}
		return a.line, nil
	case <-ctx.Done():
		return nil, errors.Join(errors.New("interrupted: nothing was changed"), term.Restore(fd, before))
	}
}
