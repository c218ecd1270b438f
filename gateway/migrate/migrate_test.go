package migrate_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/config"
	"github.com/headgate-io/headgate/gateway/migrate"
)

var update = flag.Bool("update", false, "write what is expected anew")

func read(t testing.TB, names ...string) []migrate.File {
	t.Helper()
	var files []migrate.File
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, migrate.File{Name: name, Text: text})
	}
	return files
}

// load checks the configuration as the gateway does.
func load(t testing.TB, r *migrate.Result) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "headgate.yaml")
	if err := os.WriteFile(file, append([]byte("version: 1\ngateway: {id: g, data: d}\n"), b.Bytes()...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(file); err != nil {
		t.Fatalf("%v\n\n%s", err, b.String())
	}
	return b.String()
}

// What is made of each format, and what is said of the rest, is in testdata.
func TestRead(t *testing.T) {
	for _, tt := range []struct {
		from, want string
		files      []string
		options    migrate.Options
	}{
		{"telegraf", "telegraf.yaml", []string{"telegraf.conf"}, migrate.Options{}},
		{"edgex", "edgex.yaml", []string{"edgex-devices.yaml", "edgex-profile.yaml"}, migrate.Options{Interval: time.Minute}},
		{"neuron", "neuron.yaml", []string{"neuron.csv"}, migrate.Options{URL: "tcp://192.0.2.30", Interval: 500 * time.Millisecond}},
	} {
		t.Run(tt.from, func(t *testing.T) {
			r, err := migrate.Read(tt.from, read(t, tt.files...), tt.options)
			if err != nil {
				t.Fatal(err)
			}
			got := load(t, r) + "\n"
			for _, n := range r.Notes {
				got += "# " + n.String() + "\n"
			}
			want := filepath.Join("testdata", tt.want)
			if *update {
				if err := os.WriteFile(want, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			b, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(b) {
				t.Errorf("got\n%s\nwant\n%s", got, b)
			}
		})
	}
}

// Wrong input gets an error that says what to do.
func TestRefuse(t *testing.T) {
	url := migrate.Options{URL: "tcp://h"}
	for _, tt := range []struct {
		from, text, want string
		options          migrate.Options
	}{
		{"excel", "", "use one of telegraf", migrate.Options{}},
		{"telegraf", "a = ", "x:1:", migrate.Options{}},
		{"telegraf", "[agent]\n", "no [[inputs.modbus]]", migrate.Options{}},
		{"telegraf", strings.Repeat(" ", migrate.MaxFile+1), "over 1 MiB", migrate.Options{}},
		{"edgex", "a: &b 1", "x:1:4", migrate.Options{}},
		{"edgex", "deviceList: []", "device profile", migrate.Options{}},
		{"edgex", "deviceResources: []", "file with the devices", migrate.Options{}},
		{"neuron", "group,name,address,type\n", "add --url", migrate.Options{}},
		{"neuron", "group,name,address,type\n", "--url:", migrate.Options{URL: "host"}},
		{"neuron", "", "empty", url},
		{"neuron", "name,type\n", "no column group", url},
		{"neuron", "group,name,address,type\n\"a\n", "not CSV", url},
	} {
		_, err := migrate.Read(tt.from, []migrate.File{{Name: "x", Text: []byte(tt.text)}}, tt.options)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %.30q: %v, want %s", tt.from, tt.text, err, tt.want)
		}
	}
}

// Nothing that is read makes a configuration that the gateway refuses, but for
// a serial line that is asked for more than it can carry.
func fuzz(f *testing.F, from string, options migrate.Options, files ...string) {
	for _, file := range read(f, files...) {
		f.Add(string(file.Text))
	}
	with := read(f, files...)[1:]
	f.Fuzz(func(t *testing.T, text string) {
		r, err := migrate.Read(from, append([]migrate.File{{Name: "x", Text: []byte(text)}}, with...), options)
		if err != nil {
			var problems *config.Problems
			if !errors.As(err, &problems) && strings.TrimSpace(err.Error()) == "" {
				t.Fatal("an error without words")
			}
			return
		}
		load(t, r)
	})
}

func FuzzTelegraf(f *testing.F) {
	fuzz(f, "telegraf", migrate.Options{Interval: time.Hour}, "telegraf.conf")
}

func FuzzEdgexProfile(f *testing.F) {
	fuzz(f, "edgex", migrate.Options{Interval: time.Hour}, "edgex-profile.yaml", "edgex-devices.yaml")
}

func FuzzEdgexDevices(f *testing.F) {
	fuzz(f, "edgex", migrate.Options{Interval: time.Hour}, "edgex-devices.yaml", "edgex-profile.yaml")
}

func FuzzNeuron(f *testing.F) {
	fuzz(f, "neuron", migrate.Options{URL: "tcp://h", Interval: time.Hour}, "neuron.csv")
}
