package main

import (
	"fmt"
	"os"
	"syscall"
)

// maxFile is the largest file that a verb reads, in bytes.
const maxFile = 16 << 20

// openFile opens a regular file of at most maxFile bytes; the caller closes it.
// O_NONBLOCK, because opening a FIFO would wait for its writer, and no signal
// ends that.
func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is not a regular file: name the file itself, or copy what it holds into one", path)
	case info.Size() > maxFile:
		err = fmt.Errorf("%s is over %d bytes: was another file named by mistake?", path, maxFile)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
