package broker

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Each of the scripts logs in over WebSocket, subscribes with QoS 2, publishes
// to itself 20 times with each QoS and prints OK if all came in order.

const pahoScript = `
import sys, paho.mqtt.client as mqtt
want = [str(i) for i in range(60)]
got, ready = [], []
c = mqtt.Client(client_id="paho", protocol=int(sys.argv[2]), transport="websockets")
c.ws_set_options(path="/mqtt")
c.username_pw_set("alice", "secret")
c.on_connect = lambda *a: c.subscribe("a/#", 2)
def send(*a):
    for i in range(60): c.publish("a/b", str(i), i // 20)
c.on_subscribe = send
def take(c, u, m):
    got.append(m.payload.decode())
    if len(got) == 60: c.disconnect()
c.on_message = take
c.connect("127.0.0.1", int(sys.argv[1]))
c.loop_forever()
for qos in range(3):
    part = [x for x in got if int(x) // 20 == qos]
    assert part == want[20*qos:20*qos+20], got
print("OK")
`

const mqttJSScript = `
const mqtt = require("mqtt"), [port, version] = process.argv.slice(2)
const got = []
const c = mqtt.connect("ws://127.0.0.1:" + port + "/mqtt",
  {protocolVersion: +version, clientId: "js", username: "alice", password: "secret", reconnectPeriod: 0})
c.on("error", e => { console.log(e); process.exit(1) })
c.on("message", (topic, payload) => {
  got.push(+payload)
  if (got.length < 60) return
  for (let q = 0; q < 3; q++) {
    const part = got.filter(n => Math.floor(n / 20) == q)
    if (part.some((n, i) => n != 20 * q + i)) { console.log(got); process.exit(1) }
  }
  console.log("OK")
  process.exit(0)
})
c.on("connect", () => c.subscribe("a/#", {qos: 2}, () => {
  for (let i = 0; i < 60; i++) c.publish("a/b", "" + i, {qos: Math.floor(i / 20)})
}))
`

// webPort starts a house that speaks MQTT over WebSocket.
func webPort(t *testing.T) (port string) {
	h := open(t, Limits{})
	h.serve(Listener{WebSocket: true})
	_, port, _ = net.SplitHostPort(h.addr)
	return port
}

func TestWebSocketPaho(t *testing.T) {
	port := webPort(t)
	for _, version := range []string{"4", "5"} {
		cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "-c", pahoScript, port, version)
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != "OK\n" {
			t.Errorf("v%s: %v %s (it needs python3-paho-mqtt)", version, err, out)
		}
	}
}

// MQTT.js is what browsers use. It is not a Debian package, so it is fetched.
func TestWebSocketMQTTjs(t *testing.T) {
	if os.Getenv("PROVE") == "" {
		t.Skip("PROVE=1 fetches MQTT.js with npm")
	}
	port, dir := webPort(t), t.TempDir()
	install := exec.CommandContext(t.Context(), "npm", "install", "--no-audit", "--no-fund", "mqtt@5")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm install mqtt: %v %s", err, out)
	}
	script := filepath.Join(dir, "client.js")
	if err := os.WriteFile(script, []byte(mqttJSScript), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"4", "5"} {
		out, err := exec.CommandContext(t.Context(), "node", script, port, version).CombinedOutput()
		if err != nil || string(out) != "OK\n" {
			t.Errorf("v%s: %v %s", version, err, out)
		}
	}
}
