package main

import (
	"fmt"
	"syscall"
)

// keepFromDumps has the kernel write this process into no core dump, and keeps
// other processes of the same user, plugins for one, from reading its memory.
func keepFromDumps() error {
	const setDumpable = 4 // PR_SET_DUMPABLE
	if _, _, err := syscall.RawSyscall(syscall.SYS_PRCTL, setDumpable, 0, 0); err != 0 {
		return fmt.Errorf("keep the queue's key from core dumps: %w", err)
	}
	return nil
}
