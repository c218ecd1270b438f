package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// A credential is where a user's password comes from: a person, or the
// gateway, which tells it once.
type credential struct {
	stdin, generate bool
	out             string
}

func (c *credential) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&c.stdin, "password-stdin", false, "read the password from standard input, one line")
	cmd.Flags().BoolVar(&c.generate, "generate", false, "make a secret for a device and print it, once")
	cmd.Flags().StringVar(&c.out, "out", "", "with --generate: write the secret to this new file, mode 0600, instead of printing it")
}

// to gives name a generated secret, or the password that it reads.
func (c *credential) to(cmd *cobra.Command, name string, generate func() (access.Secret, error), set func(access.Secret) error) error {
	if c.generate && c.stdin || !c.generate && c.out != "" {
		return usageError{errors.New("give --generate, with --out or without, or --password-stdin")}
	}
	if !c.generate {
		password, err := readPassword(cmd, c.stdin)
		if err != nil {
			return err
		}
		return set(password)
	}
	if c.out == "" {
		secret, err := generate()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), string(secret))
		return err
	}
	// The file comes first: a secret that cannot be kept is not made.
	f, err := os.OpenFile(c.out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("the secret of %s needs a new file: %w", name, err)
	}
	secret, err := generate()
	if err == nil {
		_, err = fmt.Fprintln(f, string(secret))
	} else {
		err = errors.Join(err, os.Remove(c.out))
	}
	return errors.Join(err, f.Close())
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
