package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The process that checks passwords gives way to everybody.
func TestHashHelperGivesWay(t *testing.T) {
	name := filepath.Join(t.TempDir(), "headgate") // testscript's name for this program
	if err := os.Symlink(os.Args[0], name); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, hashVerb)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// A question of cost m=8192, t=1, p=1 with salt and password; the answer says that it has begun.
	q := append([]byte{0, 0, 0, 1, 0, 0, 32, 0, 1, 0, 32, 0, 16, 0, 1}, make([]byte, 17)...)
	if _, err := in.Write(q); err != nil {
		t.Fatal(err)
	}
	if n, err := out.Read(make([]byte, 32)); n != 32 {
		t.Fatalf("%d bytes: %v", n, err)
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", cmd.Process.Pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("no threads: %v", err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil {
			continue // it has ended
		}
		if nice := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))[16]; nice != "5" {
			t.Errorf("a thread has the nice value %s, want 5", nice)
		}
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
