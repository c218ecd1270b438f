package pki

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func (h *house) link(t *testing.T) ClientFiles {
	t.Helper()
	cert, key := h.sign("link", newKey(t), nil)
	return ClientFiles{CA: h.file(CACertificate), Certificate: cert, Key: key}
}

// next makes a pair as text; its files are gone.
func (h *house) next(t *testing.T) (chain, key []byte) {
	t.Helper()
	cert, keyFile := h.sign("next", newKey(t), nil)
	for file, text := range map[string]*[]byte{cert: &chain, keyFile: &key} {
		var err error
		if *text, err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
		os.Remove(file)
	}
	return chain, key
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Wherever a crash stops it, the old or the new pair is in force.
func TestInstallAcrossCrashes(t *testing.T) {
	h := newHouse(t)
	for step := range 4 {
		files := h.link(t)
		oldCert, oldKey := read(t, files.Certificate), read(t, files.Key)
		chain, key := h.next(t)
		for i, f := range []func() error{
			func() error { return replace(files.Key+newSuffix, key, 0o600) },
			func() error { return replace(files.Certificate+newSuffix, chain, 0o644) },
			func() error { return os.Rename(files.Key+newSuffix, files.Key) },
		} {
			if i < step {
				if err := f(); err != nil {
					t.Fatal(err)
				}
			}
		}
		cfg, err := NewCredentials(files).Config("gate.example")
		if err != nil {
			t.Fatalf("after step %d: %v", step, err)
		}
		want := oldCert
		if step == 3 {
			want = string(chain)
		}
		if block, _ := pem.Decode([]byte(want)); !bytes.Equal(shows(t, cfg), block.Bytes) {
			t.Errorf("after step %d another certificate is in force", step)
		}
		if step < 3 {
			if err := Install(files, chain, key); err != nil { // it is simply done again
				t.Errorf("after step %d: %v", step, err)
			}
			if read(t, files.Certificate) != string(chain) || read(t, files.Certificate+".old") != oldCert || read(t, files.Key+".old") != oldKey {
				t.Errorf("after step %d the files are not right", step)
			}
		}
		for _, suffix := range []string{"", newSuffix, oldSuffix} {
			os.Remove(files.Certificate + suffix)
			os.Remove(files.Key + suffix)
		}
	}
}

func TestInstallRefuses(t *testing.T) {
	h, stranger := newHouse(t), newHouse(t)
	files := h.link(t)
	os.Chmod(files.Key, 0o640)
	before := read(t, files.Certificate)
	chain, key := h.next(t)
	_, other := stranger.next(t)
	for want, pair := range map[string][2][]byte{
		"does not match": {chain, other},
		"no PEM block":   {[]byte("hello"), key},
		"is empty":       {chain, nil},
	} {
		err := Install(files, pair[0], pair[1])
		if err == nil || !strings.Contains(err.Error(), "the new pair is not used") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if entries, _ := filepath.Glob(files.Certificate + ".*"); len(entries) > 0 || read(t, files.Certificate) != before {
		t.Errorf("a refused pair left %v", entries)
	}
	if err := Install(files, chain, key); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(files.Key); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the new key has mode %v, the old one had 0640: %v", info.Mode(), err)
	}
}

func TestReissue(t *testing.T) {
	h := newHouse(t)
	if _, _, err := Issue(h.dir, "press-1", ForClient, Options{Lifetime: 30 * day}); err != nil {
		t.Fatal(err)
	}
	for name, names := range map[string]string{"press-1": "urn:headgate:client:press-1", "broker": "localhost gate.example 127.0.0.1 ::1 192.0.2.1"} {
		before, _ := Inspect(h.file(name + ".crt"))
		if _, _, err := Reissue(h.dir, name); err != nil {
			t.Fatal(err)
		}
		after, err := Inspect(h.file(name + ".crt"))
		if err != nil || after.Serial == before.Serial || after.KeyDigest == before.KeyDigest || strings.Join(after.Names, " ") != names {
			t.Errorf("%v %v", after, err)
		}
		if off := after.NotAfter.Sub(after.NotBefore) - before.NotAfter.Sub(before.NotBefore); off.Abs() > time.Minute {
			t.Errorf("%s lives longer by %v", name, off)
		}
		if old, _ := Inspect(h.file(name + ".crt.old")); old.Serial != before.Serial {
			t.Errorf("%s: the one before is not kept", name)
		}
	}
	serials, err := SerialsOf(h.dir, "press-1")
	if slices.Sort(serials); err != nil || len(slices.Compact(serials)) != 2 {
		t.Errorf("on record: %v %v", serials, err)
	}
	if _, _, err := Reissue(h.dir, "ca"); err == nil || !strings.Contains(err.Error(), "is a CA") {
		t.Errorf("the CA: %v", err)
	}
	if _, _, err := Reissue(h.dir, "nobody"); err == nil {
		t.Error("what is not there was renewed")
	}
	if o := shake(t, h.server(Required), h.client("press-1")); o.server != nil || o.client != nil {
		t.Errorf("server %v, client %v", o.server, o.client)
	}
}
