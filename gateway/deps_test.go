package gateway_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/headgate-io/headgate/"

// An edge lets the packages that match from import to: a package of ours by its folder,
// or a module of others with all that is in it. What no edge allows is forbidden, but for
// the standard library.
type edge struct{ from, to, why string }

var edges = []edge{
	// The stages. None of them knows the gateway.
	{"southbound/modbus", "southbound", "is an adapter"},
	{"southbound/modbus", "github.com/goburrow/modbus", "the codec of Modbus frames"},
	{"southbound/modbus", "golang.org/x/sys", "speed, shape and lock of serial ports"},
	{"southbound/modbus/simulator", "southbound/modbus", "serves the points that a device configuration names"},
	{"southbound/modbus/simulator", "golang.org/x/sys", "its end of a pseudo-terminal"},
	{"southbound/plugin", "southbound", "is an adapter"},
	{"southbound/plugin", "plugins/sdk", "speaks the same protocol as the plugin"},
	{"southbound/plugin", "plugins/sdk/wire", "speaks the same protocol as the plugin"},
	{"southbound/plugin", "github.com/hashicorp/go-plugin", "starts the subprocess and shakes hands"},
	{"southbound/plugin", "github.com/hashicorp/go-hclog", "go-plugin logs through it"},
	{"southbound/plugin", "google.golang.org/grpc", "the plugin protocol"},
	{"southbound/plugin", "golang.org/x/sys", "rights and limits of the subprocess"},
	{"southbound/adaptertest", "southbound", "the contract it tests"},
	{"storequeue", "go.etcd.io/bbolt", "the file format of the queue"},
	{"storequeue", "golang.org/x/sys", "free space and locks of the file system"},
	{"northbound", "storequeue", "what it delivers"},
	{"northbound", "github.com/eclipse/paho.golang", "the MQTT 5 client"},
	{"northbound", "golang.org/x/sys", "what the socket has not sent yet"},

	// The plugins' side.
	{"plugins/sdk", "southbound", "what a plugin implements"},
	{"plugins/sdk", "plugins/sdk/wire", "its messages"},
	{"plugins/sdk", "github.com/hashicorp/go-plugin", "the other end of southbound/plugin"},
	{"plugins/sdk", "github.com/hashicorp/go-hclog", "go-plugin logs through it"},
	{"plugins/sdk", "google.golang.org/grpc", "the plugin protocol"},
	{"plugins/sdk/wire", "southbound", "what the messages carry"},
	{"plugins/sdk/wire", "github.com/hashicorp/go-plugin", "the handshake both ends share"},
	{"plugins/sdk/wire", "google.golang.org/grpc", "generated from the protocol"},
	{"plugins/sdk/wire", "google.golang.org/protobuf", "generated from the protocol"},
	{"plugins/sdk/wire", "unsafe", "generated from the protocol"},
	{"plugins/*", "plugins/sdk", "is a plugin"},
	{"plugins/*", "southbound", "is an adapter"},

	// The gateway's rooms.
	{"gateway/access", "gateway/mqtt", "topic filters"},
	{"gateway/access", "golang.org/x/crypto", "argon2id"},
	{"gateway/admin", "golang.org/x/sys", "who is at the other end of the socket"},
	{"gateway/broker", "gateway/access", "asks before each sink"},
	{"gateway/broker", "gateway/mqtt", "the wire"},
	{"gateway/broker", "storequeue", "acknowledges what is on disk"},
	{"gateway/broker", "github.com/coder/websocket", "frames of ws and wss listeners"},
	{"gateway/client", "gateway/mqtt", "the wire"},
	{"gateway/enrol", "gateway/pki", "keys, requests, and the check of what comes back"},
	{"gateway/config", "gateway/access", "the rules it builds"},
	{"gateway/config", "gateway/mqtt", "topic filters"},
	{"gateway/config", "southbound", "how tags may be written"},
	{"gateway/config", "southbound/modbus", "the buses and tags it builds"},
	{"gateway/config", "github.com/goccy/go-yaml", "YAML with positions"},

	{"gateway/export", "storequeue", "the messages that it carries"},
	{"gateway/export", "filippo.io/age", "what leaves the house on a stick may be encrypted"},

	{"gateway/migrate", "gateway/config", "the bounds of YAML"},
	{"gateway/migrate", "southbound/modbus", "checks the buses and tags it makes"},
	{"gateway/migrate", "github.com/goccy/go-yaml", "EdgeX's profiles"},
	{"gateway/migrate", "github.com/pelletier/go-toml/v2", "telegraf's configuration, with lines"},

	// Who puts it together.
	{"gateway", "gateway/access", "builds it"},
	{"gateway", "gateway/admin", "builds it"},
	{"gateway", "gateway/broker", "builds it"},
	{"gateway", "gateway/config", "builds from it"},
	{"gateway", "gateway/enrol", "renews certificates of links"},
	{"gateway", "gateway/export", "takes in what another gateway exported"},
	{"gateway", "gateway/mqtt", "topics of state and commands"},
	{"gateway", "gateway/pki", "builds it"},
	{"gateway", "northbound", "builds it"},
	{"gateway", "southbound", "builds it"},
	{"gateway", "southbound/modbus", "the built-in adapter"},
	{"gateway", "southbound/plugin", "every other adapter"},
	{"gateway", "storequeue", "builds it"},
	{"gateway", "golang.org/x/sync", "one errgroup for all tasks"},
	{"gateway/demo", "gateway", "the gateway on show"},
	{"gateway/demo", "gateway/access", "rules of the stand-in cloud"},
	{"gateway/demo", "gateway/broker", "the stand-in cloud"},
	{"gateway/demo", "gateway/client", "who counts what arrives in the cloud"},
	{"gateway/demo", "gateway/config", "the configuration on show"},
	{"gateway/demo", "gateway/mqtt", "what arrives in the cloud"},
	{"gateway/demo", "gateway/pki", "certificates of both ends"},
	{"gateway/demo", "southbound/modbus/simulator", "the device"},
	{"gateway/demo", "storequeue", "the log of the stand-in cloud"},
	{"gateway/demo", "golang.org/x/sync", "one errgroup for all parts"},
	{"cmd/headgate", "gateway", "headgate run"},
	{"cmd/headgate", "gateway/demo", "headgate demo"},
	{"cmd/headgate", "gateway/access", "headgate user, headgate access explain"},
	{"cmd/headgate", "gateway/admin", "asks the running gateway"},
	{"cmd/headgate", "gateway/client", "headgate pub, headgate sub"},
	{"cmd/headgate", "gateway/config", "headgate check"},
	{"cmd/headgate", "gateway/export", "headgate queue export, headgate queue import"},
	{"cmd/headgate", "gateway/migrate", "headgate modbus import"},
	{"cmd/headgate", "gateway/mqtt", "the packets of pub and sub"},
	{"cmd/headgate", "gateway/pki", "headgate cert"},
	{"cmd/headgate", "northbound", "headgate verify"},
	{"cmd/headgate", "southbound", "headgate modbus"},
	{"cmd/headgate", "southbound/modbus", "headgate modbus"},
	{"cmd/headgate", "southbound/modbus/simulator", "headgate simulate"},
	{"cmd/headgate", "github.com/spf13/cobra", "verbs and flags"},
	{"cmd/headgate", "golang.org/x/term", "passwords without echo"},
}

// testEdges hold for test files, on top of edges and of a package's own tests.
var testEdges = []edge{
	{"*", "go.uber.org/goleak", "no goroutine outlives its test"},
	{"*/*", "go.uber.org/goleak", "no goroutine outlives its test"},
	{"*/*/*", "go.uber.org/goleak", "no goroutine outlives its test"},
	{"southbound", "github.com/fxamacker/cbor/v2", "decodes what we encode"},
	{"southbound/*", "southbound/adaptertest", "passes the contract"},
	{"southbound/modbus", "southbound/modbus/simulator", "a device to read"},
	{"southbound/plugin", "google.golang.org/protobuf", "messages that no honest plugin sends"},
	{"southbound/modbus/simulator", "southbound", "read through the adapter"},
	{"southbound/modbus/simulator", "southbound/adaptertest", "passes the contract"},
	{"plugins/*", "southbound/adaptertest", "passes the contract"},
	{"plugins/*", "southbound/plugin", "started as the gateway starts it"},
	{"plugins/*", "plugins/sdk/wire", "what it says about itself"},
	{"northbound", "gateway/broker", "a cloud that is not paho's"},
	{"northbound", "gateway/mqtt", "a cloud that misbehaves"},
	{"gateway/access", "gateway/client", "asks mosquitto what its own acl_file allows"},
	{"gateway/broker", "github.com/eclipse/paho.golang", "a client that shares no code with the broker"},
	{"gateway/broker", "gateway/client", "a client"},
	{"gateway/broker", "gateway/pki", "certificates for its listeners"},
	{"gateway", "gateway/client", "clients and a cloud from outside"},
	{"gateway", "filippo.io/age", "a key for what is carried"},
	{"gateway", "southbound/modbus/simulator", "a device to read"},
	{"gateway", "github.com/eclipse/paho.golang", "a client that shares no code with the broker"},
	{"packaging", "gateway/config", "the configuration and the profiles as shipped load"},
	{"packaging", "southbound", "what a profile reads"},
	{"packaging", "southbound/modbus", "reads by a profile"},
	{"packaging", "southbound/modbus/simulator", "a device that holds a dump"},
	{"cmd/headgate", "github.com/rogpeppe/go-internal", "the command line as scripts"},
}

// A use is one import in one file. The package is its folder.
type use struct{ pkg, file, path string }

// forbidden says what is wrong with u, or nothing.
func (u use) forbidden() string {
	if first, _, _ := strings.Cut(u.path, "/"); !strings.Contains(first, ".") && u.path != "C" && u.path != "unsafe" {
		return ""
	}
	target := strings.TrimPrefix(u.path, module)
	allowed := edges
	if strings.HasSuffix(u.file, "_test.go") {
		if target == u.pkg {
			return ""
		}
		allowed = append(allowed[:len(allowed):len(allowed)], testEdges...)
	}
	for _, e := range allowed {
		from, err := path.Match(e.from, u.pkg)
		if err != nil {
			return err.Error()
		}
		theirs := target == u.path && strings.HasPrefix(target, e.to+"/")
		if from && (target == e.to || theirs) {
			return ""
		}
	}
	return fmt.Sprintf("%s: %s must not import %s: no edge in gateway/deps_test.go allows it", u.file, u.pkg, target)
}

func TestImports(t *testing.T) {
	count := 0
	for _, file := range sources(t) {
		for _, spec := range file.ast.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			count++
			if wrong := (use{path.Dir(file.name), file.name, imported}).forbidden(); wrong != "" {
				t.Error(wrong)
			}
		}
	}
	if count == 0 {
		t.Error("no import found: the walk is broken")
	}
}

func TestForbiddenImportsAreSeen(t *testing.T) {
	for _, tt := range []struct {
		file, path string
		forbidden  bool
	}{
		{"southbound/device.go", module + "gateway/broker", true},
		{"southbound/device.go", "golang.org/x/sync/errgroup", true},
		{"southbound/modbus/session.go", module + "southbound", false},
		{"northbound/link.go", module + "gateway/mqtt", true},
		{"northbound/link.go", "github.com/eclipse/paho.golang/paho", false},
		{"northbound/link_test.go", module + "gateway/mqtt", false},
		{"northbound/link_test.go", module + "northbound", false},
		{"gateway/config/load.go", "go.etcd.io/bbolt", true},
		{"gateway/mqtt/decode.go", module + "gateway/access", true},
		{"gateway/mqtt/decode_test.go", "go.uber.org/goleak", false},
		{"gateway/mqtt/decode.go", "go.uber.org/goleak", true},
		{"gateway/mqtt/decode.go", "unsafe", true},
		{"gateway/admin/server.go", "net/http", false},
		{"storequeue/queue.go", module + "northbound", true},
		{"storequeue/queue.go", "go.etcd.io/bbolt/errors", false},
		{"storequeue/queue.go", "go.etcd.io/bboltish", true},
		{"plugins/opcua/main.go", module + "plugins/sdk", false},
		{"plugins/opcua/main.go", module + "gateway/config", true},
		{"cmd/headgate/tail.go", "github.com/eclipse/paho.golang/paho", true},
		{"cmd/headgate/tail.go", "C", true},
	} {
		got := use{path.Dir(tt.file), tt.file, tt.path}.forbidden()
		if (got != "") != tt.forbidden {
			t.Errorf("%s imports %s: got %q, want forbidden %v", tt.file, tt.path, got, tt.forbidden)
		}
	}
	want := "southbound/device.go: southbound must not import gateway/broker: no edge in gateway/deps_test.go allows it"
	if got := (use{"southbound", "southbound/device.go", module + "gateway/broker"}).forbidden(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A source is one Go file of the module that was written by hand, its name relative to
// the module, with slashes.
type source struct {
	name string
	text string
	fset *token.FileSet
	ast  *ast.File
}

func parse(name, text string) (source, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, text, parser.ParseComments)
	return source{name, text, fset, file}, err
}

// sources reads every Go file of the module, whatever its build tags. The modules in
// tools/ are others.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	tree := os.DirFS(filepath.Clean(".."))
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "testdata" || name == "tools" || name == "bin" || name == "dist" || name == ".git"):
			return fs.SkipDir
		case path.Ext(name) != ".go":
			return nil
		}
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		file, err := parse(name, string(text))
		all = append(all, file)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
