package main

import (
	"os"
	"runtime"
	"strconv"
	"syscall"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/spf13/cobra"
)

const hashVerb = "check-passwords"

// hashCommand is what headgate run starts for itself.
func hashCommand() *cobra.Command {
	return &cobra.Command{
		Use:    hashVerb,
		Short:  "Compute password hashes for headgate run",
		Hidden: true,
		Args:   args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			runtime.GOMAXPROCS(1)
			giveWay()
			return access.AnswerHashes(cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

// giveWay lets this process have a quarter of the processor that one with work
// to do leaves it: less, and a busy machine would let nobody in. Linux asks for
// that thread by thread, and new threads are like those that start them. Where
// it is not allowed, it is done without.
func giveWay() {
	const lower = 5
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, t := range threads {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			_ = syscall.Setpriority(syscall.PRIO_PROCESS, id, lower)
		}
	}
}

// hashHelper is how this program starts itself for that; nil: it does not know
// where it is.
func hashHelper() []string {
	self, err := os.Executable()
	if err != nil {
		return nil
	}
	return []string{self, hashVerb}
}
