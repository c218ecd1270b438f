package gateway_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/headgate-io/headgate/gateway/client"
	"github.com/headgate-io/headgate/northbound"
)

// What arrives at the cloud while the gateway is killed again and again is
// proved whole by headgate verify, which knows nothing but what arrived.
func TestVerifyAtTheCloud(t *testing.T) {
	for name, link := range map[string]string{"MQTT 5": "", "MQTT 3.1.1": "    protocol: 3.1.1\n    envelope: json\n"} {
		t.Run(name, func(t *testing.T) { verifyAtTheCloud(t, link) })
	}
}

func verifyAtTheCloud(t *testing.T, link string) {
	cloud := newCloud(t, "")
	cloud.start(t)
	verify := func(more ...string) *exec.Cmd {
		return exec.Command(headgate(t), append([]string{"verify", "-h", "localhost", "-p", fmt.Sprint(cloud.port), "-t", "sites/+/plant/#",
			"--cafile", filepath.Join(cloud.dir, "ca.crt"), "--cert", filepath.Join(cloud.dir, "watcher.crt"), "--key", filepath.Join(cloud.dir, "watcher.key"),
			"-i", "auditor", "-c", "--json"}, more...)...)
	}
	if out, err := verify("--for", "1s").Output(); err != nil { // its session is at the cloud from now on
		t.Fatalf("%v\n%s", err, out)
	}
	s := newSite(t, cloud, link)
	const rounds, each = 3, 200
	for round := range rounds {
		g := startGateway(t, s.config)
		cl := dial(t, client.Options{Address: fmt.Sprintf("127.0.0.1:%d", s.plain), CleanStart: true})
		acked := make(chan error, each)
		for i := range each {
			cl.PublishAsync(client.Message{Topic: fmt.Sprint("plant/", i%3), Payload: fmt.Append(nil, round, i), QoS: 1}, func(err error) { acked <- err })
		}
		for range each {
			if err := <-acked; err != nil {
				t.Fatal(err)
			}
		}
		g.kill()
	}
	startGateway(t, s.config)
	out, err := verify("-C", fmt.Sprint(rounds*each)).Output() // repeats count: what is missing at the end is behind what is told
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got struct {
		Good bool
		Logs []northbound.Finding
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	if !got.Good || len(got.Logs) != 1 || got.Logs[0].Missing != 0 || got.Logs[0].Disordered != 0 || got.Logs[0].Messages != rounds*each {
		t.Errorf("%s", out)
	}
}
