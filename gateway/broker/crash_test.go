package broker

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/storequeue"
)

// childEnv makes the test binary a broker over the queue it names.
const childEnv = "HEADGATE_BROKER_TEST_QUEUE"

// child serves until it is killed, or its standard input ends.
func child(dir string) {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	q, err := storequeue.Open(dir, storequeue.Config{})
	if err != nil {
		fail(err)
	}
	all, err := access.Compile([]access.Rule{{Allow: true, Who: "*", Actions: both, Topics: []string{"#"}}})
	if err != nil {
		fail(err)
	}
	b, err := New(Config{Queue: q, Access: password{access.NewGate(access.Config{}, nil, all, nil)},
		Listeners: []Listener{{Address: "127.0.0.1:0"}}})
	if err != nil {
		fail(err)
	}
	go func() { fail(b.Run(context.Background())) }()
	<-b.Ready()
	fmt.Println(b.Addrs()[0])
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

func TestProbe19Kill(t *testing.T) {
	h := open(t, Limits{})
	h.close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+h.dir)
	cmd.Stderr = os.Stderr
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
	defer in.Close()
	line := make([]byte, 64)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	h.addr = strings.TrimSpace(string(line[:n]))

	s := h.login(mqtt.V5, "bob", "s", durable)
	s.subscribe("a", 1)
	s.nc.Close()
	p := h.login(mqtt.V5, "alice", "p")
	p.publish("kept", "retained", 1, retain)
	for i := range 500 {
		p.publish("a", fmt.Sprint(i), 1+byte(i%2))
	}
	cmd.Process.Kill()
	cmd.Wait()

	h.start()
	s = h.login(mqtt.V5, "bob", "s", durable)
	for i := range 500 {
		s.expectMessage(fmt.Sprint(i))
	}
	s.subscribe("kept", 0)
	s.expectMessage("retained")
}
