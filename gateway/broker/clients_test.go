package broker

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Each of the scripts plays one of three parts: "subscribe" opens a session that
// outlives its connection, "publish" sends 30 messages with QoS 1 and 2 in turn,
// "receive" comes back to the session, of which CONNACK must speak, and prints OK
// if they are all there with their properties in MQTT 5, those of each QoS in
// order: these clients show a message with QoS 2 when its PUBREL has come.

const pahoParts = `
import sys, paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
part, port, five = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "5"
c = mqtt.Client(part[0] if part == "publish" else "s", clean_session=None if five else False,
    protocol=mqtt.MQTTv5 if five else mqtt.MQTTv311)
c.username_pw_set("alice", "secret")
got, sent, present = [], [], []
def connected(c, u, flags, code, props=None):
    present.append(flags["session present"])
    if part == "subscribe": c.subscribe("t/#", 2)
    if part != "publish": return
    p = None
    if five:
        p = Properties(PacketTypes.PUBLISH)
        p.ContentType, p.ResponseTopic, p.CorrelationData = "text", "answer/to", b"\x00\x01"
        p.UserProperty = [("k", "2"), ("k", "1")]
        p.MessageExpiryInterval = 1000
    for i in range(30): c.publish("t/x", str(i), 1 + i % 2, properties=p)
c.on_connect = connected
c.on_subscribe = lambda *a: c.disconnect()
def published(*a):
    sent.append(1)
    if len(sent) == 30: c.disconnect()
c.on_publish = published
def take(c, u, m):
    p = m.properties if five else None
    if not five or (p.ContentType, p.ResponseTopic, p.CorrelationData, p.UserProperty) == (
            "text", "answer/to", b"\x00\x01", [("k", "2"), ("k", "1")]) and 900 < p.MessageExpiryInterval <= 1000:
        got.append((m.qos, m.payload.decode()))
    else:
        print(p)
    if len(got) == 30: c.disconnect()
c.on_message = take
if five:
    p = Properties(PacketTypes.CONNECT)
    p.SessionExpiryInterval = 3600
    c.connect("127.0.0.1", port, clean_start=False, properties=p)
else:
    c.connect("127.0.0.1", port)
c.loop_forever()
if part == "receive":
    assert present == [1], present
    assert sorted(got, key=lambda m: m[0]) == [(q, str(i)) for q in (1, 2) for i in range(q - 1, 30, 2)], got
print("OK")
`

const mqttJSParts = `
const mqtt = require("mqtt"), assert = require("assert")
const [part, port, version] = process.argv.slice(2), five = version == "5"
const c = mqtt.connect("mqtt://127.0.0.1:" + port, {
  protocolVersion: +version, clientId: part == "publish" ? "p" : "s", username: "alice", password: "secret",
  clean: false, reconnectPeriod: 0, properties: five ? {sessionExpiryInterval: 3600} : undefined})
const done = () => c.end(false, {}, () => console.log("OK"))
const properties = five ? {contentType: "text", responseTopic: "answer/to", correlationData: Buffer.from([0, 1]),
  userProperties: {k: ["2", "1"]}, messageExpiryInterval: 1000} : undefined
c.on("error", e => { console.log(e); process.exit(1) })
let present
const got = {1: [], 2: []}
c.on("connect", async ack => {
  present = ack.sessionPresent
  if (part == "subscribe") { await c.subscribeAsync("t/#", {qos: 2}); done() }
  if (part != "publish") return
  await Promise.all([...Array(30).keys()].map(i => c.publishAsync("t/x", "" + i, {qos: 1 + i % 2, properties})))
  done()
})
c.on("message", (topic, payload, packet) => {
  got[packet.qos].push(+payload)
  if (five) {
    const p = {...packet.properties}
    assert(p.messageExpiryInterval > 900)
    p.messageExpiryInterval = 1000
    assert.deepEqual(p, properties)
  }
  if (got[1].length + got[2].length < 30) return
  for (let i = 0; i < 30; i++) assert.equal(got[1 + i % 2][Math.floor(i / 2)], i)
  setTimeout(() => { assert(present); done() }, 0)
})
`

// playParts restarts the broker between the parts. command is the script's
// without its arguments.
func playParts(t *testing.T, command ...string) {
	for _, version := range []string{"4", "5"} {
		t.Run("v"+version, func(t *testing.T) {
			h := open(t, Limits{})
			for _, part := range []string{"subscribe", "publish", "receive"} {
				_, port, _ := net.SplitHostPort(h.addr)
				args := append(command[1:len(command):len(command)], part, port, version)
				if out, err := exec.CommandContext(t.Context(), command[0], args...).CombinedOutput(); err != nil || string(out) != "OK\n" {
					t.Fatalf("%s: %v %s", part, err, out)
				}
				h.restart()
			}
		})
	}
}

func TestPahoPython(t *testing.T) {
	playParts(t, "/usr/bin/python3", "-c", pahoParts) // of python3-paho-mqtt
}

func TestMQTTjs(t *testing.T) {
	if os.Getenv("PROVE") == "" {
		t.Skip("PROVE=1 fetches MQTT.js with npm")
	}
	dir := t.TempDir()
	install := exec.CommandContext(t.Context(), "npm", "install", "--no-audit", "--no-fund", "mqtt@5")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm install mqtt: %v %s", err, out)
	}
	script := filepath.Join(dir, "parts.js")
	if err := os.WriteFile(script, []byte(mqttJSParts), 0o600); err != nil {
		t.Fatal(err)
	}
	playParts(t, "node", script)
}
