package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// drainTime is how long a dead process's last words are waited for, when a
// grandchild that escaped still holds the pipes.
const drainTime = 250 * time.Millisecond

// process is a plugin's process, a runner.Runner for go-plugin. It is started
// once; kill ends it together with its process group.
//
// The child is forked by a thread that lives as long as the child does:
// the kernel's parent death signal is tied to that thread.
type process struct {
	path string
	file *os.File // the verified executable
	log  *lineLog

	cmd    *exec.Cmd // as go-plugin prepared it
	dir    string    // of the socket; removed when the process has ended
	stdin  *os.File  // held open: its end tells the plugin to end
	stdout *os.File
	stderr *os.File

	mu     sync.Mutex // covers pid, killed, reaped and cause
	pid    int
	killed bool
	reaped bool
	cause  error // why we killed it, if there is more to say than that

	exited chan struct{} // closed when the child is reaped and its log is read
	gone   chan struct{} // closed when go-plugin is done with it as well
	state  error         // how it ended, nil for status 0; read after exited
}

func newProcess(path string, file *os.File, log *lineLog) *process {
	return &process{path: path, file: file, log: log, exited: make(chan struct{}), gone: make(chan struct{})}
}

// prepare takes over the command that go-plugin filled with the handshake.
func (p *process) prepare(cmd *exec.Cmd, dir string) {
	const first = 3 // of ExtraFiles in the child
	cmd.Path = "/proc/self/fd/" + strconv.Itoa(first)
	cmd.Args = []string{p.path}
	cmd.ExtraFiles = []*os.File{p.file}
	cmd.Dir = "/"
	cmd.Err = nil
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.cmd, p.dir = cmd, dir
}

// Start starts the child. Its goroutine ends when the child has.
func (p *process) Start(ctx context.Context) error {
	started := make(chan error)
	go p.run(started)
	if err := <-started; err != nil {
		close(p.gone)
		return fmt.Errorf("start %s: %w", p.path, err)
	}
	return nil
}

func (p *process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.exited)
	defer os.RemoveAll(p.dir)
	if err := p.fork(); err != nil {
		started <- err
		return
	}
	logged := make(chan struct{})
	go func() { // ends with the pipe, or at the deadline set below
		defer close(logged)
		p.log.copy(p.stderr)
	}()
	started <- nil
	p.reap()
	deadline := time.Now().Add(drainTime)
	_ = p.stdout.SetReadDeadline(deadline)
	_ = p.stderr.SetReadDeadline(deadline)
	<-logged
	_ = p.stderr.Close()
	_ = p.stdin.Close()
}

// fork starts the command with our ends of its three pipes.
func (p *process) fork() error {
	var theirs, ours [3]*os.File
	for i := range theirs {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(theirs[:])
			closeAll(ours[:])
			return fmt.Errorf("open pipe: %w", err)
		}
		theirs[i], ours[i] = w, r
		if i == 0 {
			theirs[i], ours[i] = r, w
		}
	}
	defer closeAll(theirs[:])
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = theirs[0], theirs[1], theirs[2]
	p.mu.Lock()
	killed := p.killed
	p.mu.Unlock()
	err := errors.New("given up")
	if !killed {
		err = p.cmd.Start()
	}
	if err != nil {
		closeAll(ours[:])
		return err
	}
	p.stdin, p.stdout, p.stderr = ours[0], ours[1], ours[2]
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pid = p.cmd.Process.Pid
	if p.killed { // meanwhile
		_ = unix.Kill(-p.pid, unix.SIGKILL)
	}
	return nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// reap waits for the child to end and ends what it left behind. As long as the
// child is a zombie its process id, and so its group's, is nobody else's.
func (p *process) reap() {
	for {
		err := unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = unix.Kill(-p.pid, unix.SIGKILL)
	p.state = p.cmd.Wait() // does not block: the child is a zombie
	p.reaped = true
}

// fail kills the process for a reason that the session's error should give.
func (p *process) fail(cause error) {
	p.mu.Lock()
	if p.cause == nil && !p.killed {
		p.cause = cause
	}
	p.mu.Unlock()
	p.kill()
}

// kill kills the process group. It may be called at any time, also before the
// start, which then fails, and more than once.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killed = true
	if p.pid != 0 && !p.reaped {
		_ = unix.Kill(-p.pid, unix.SIGKILL)
	}
}

// end kills the process and waits until nothing of it is left.
func (p *process) end() error {
	const patience = 5 * time.Second
	p.kill()
	if p.cmd == nil { // never prepared
		return nil
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.gone:
		return nil
	case <-timer.C:
		return fmt.Errorf("process %s does not end after SIGKILL; it hangs in the kernel, look at its device", p.ID())
	}
}

// ending says how the process ended, empty if only because we killed it. It
// is asked after exited.
func (p *process) ending() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.cause != nil:
		return p.cause.Error()
	case p.state == nil:
		return "the process ended"
	}
	var exit *exec.ExitError
	if errors.As(p.state, &exit) && p.killed {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signal() == syscall.SIGKILL {
			return ""
		}
	}
	return "the process ended: " + p.state.Error()
}

// Wait is called by go-plugin once it has read standard output.
func (p *process) Wait(context.Context) error {
	<-p.exited
	_ = p.stdout.Close()
	close(p.gone)
	return p.state
}

// Kill is called by go-plugin when the handshake fails.
func (p *process) Kill(context.Context) error {
	p.kill()
	return nil
}

// ID returns the process id, "0" before the start.
func (p *process) ID() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strconv.Itoa(p.pid)
}

// Name returns the path of the executable.
func (p *process) Name() string { return p.path }

// Diagnose has nothing to add: Open's error carries what the plugin logged.
func (p *process) Diagnose(context.Context) string { return "" }

// Stdout is where go-plugin reads the handshake.
func (p *process) Stdout() io.ReadCloser { return p.stdout }

// Stderr is empty for go-plugin: the log is read here, not there.
func (p *process) Stderr() io.ReadCloser { return io.NopCloser(eof{}) }

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// PluginToHost accepts the address that the plugin announced only if it is a
// socket in the folder that was made for it.
func (p *process) PluginToHost(network, address string) (string, string, error) {
	if network != "unix" || filepath.Dir(address) != p.dir || filepath.Clean(address) != address {
		return "", "", fmt.Errorf("the plugin announced %.16q %.128q; only a unix socket in its own folder is spoken to", network, address)
	}
	info, err := os.Lstat(address)
	if err != nil {
		return "", "", fmt.Errorf("look at the plugin's socket: %w", err)
	}
	if info.Mode().Type() != os.ModeSocket {
		return "", "", fmt.Errorf("the plugin announced %s, which is no socket", address)
	}
	return network, address, nil
}

// HostToPlugin is never needed: the plugin calls nobody.
func (p *process) HostToPlugin(string, string) (string, string, error) {
	return "", "", errors.New("a plugin calls nobody")
}
