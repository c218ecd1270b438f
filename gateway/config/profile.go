package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// ownProfiles is the folder of profiles beside the configuration. A profile
// there takes the place of one of the same name that was shipped.
const ownProfiles = "profiles.d"

// fileProfile is what devices of one model have in common: a file of its own.
type fileProfile struct {
	block
	what     text
	name     label
	title    text
	protocol text
	device   fileDevice
}

// profileKeys are those of a device that a profile may give.
var profileKeys = []string{
	"order", "address_base", "max_registers", "max_gap", "force_fc15", "force_fc16", "holes", "retries", "int64_as", "groups", "tags",
}

func (p *fileProfile) keys() []key {
	return append([]key{
		{name: "kind", into: &p.what, required: true, oneOf: []string{"profile"}, doc: "profile."},
		{name: "name", into: &p.name, required: true, doc: "The name of the file without .yaml."},
		{name: "title", into: &p.title, doc: "What it is, for people."},
		{name: "protocol", into: &p.protocol, required: true, oneOf: []string{"modbus"}, doc: "modbus."},
	}, sharedKeys(&p.device)...)
}

func sharedKeys(d *fileDevice) []key {
	return slices.DeleteFunc(d.keys(), func(k key) bool { return !slices.Contains(profileKeys, k.name) })
}

// profiles gives the devices of a configuration what their profiles have. dir is
// the folder of the configuration.
func (f *file) profiles(dir string, rep *report) {
	shipped := f.gateway.profiles.v
	if !f.gateway.profiles.good() {
		shipped = shippedProfiles
	}
	l := profileLoader{folders: []string{filepath.Join(dir, ownProfiles), shipped}, read: map[string]*source{}, dir: dir}
	for _, d := range f.devices.items {
		if !d.profile.good() {
			continue
		}
		if p := l.load(&d.profile, rep); p != nil {
			mergeKeys(sharedKeys(d), sharedKeys(&p.device))
		}
	}
}

type profileLoader struct {
	folders []string
	dir     string
	read    map[string]*source // by name; nil: it could not be read, or was wrong
}

// load reads a profile, anew for each device: what is wrong with it is said once.
func (l *profileLoader) load(name *label, rep *report) *fileProfile {
	src, again := l.read[name.v]
	if again && src == nil {
		return nil
	}
	if !again {
		src = l.find(name, rep)
		l.read[name.v] = src
		if src == nil {
			return nil
		}
		src.order = maxFiles + len(l.read)
	}
	before := len(rep.found)
	root := src.parse(rep)
	p := &fileProfile{}
	r := &reader{src: src, dir: l.dir, rep: rep}
	if len(rep.found) == before {
		r.section(root, p, "the profile")
		rep.complete(p)
	}
	if p.name.good() && p.name.v != name.v {
		rep.add(p.name.at, "give the file and the profile the same name", "profile %q in the file of %q", p.name.v, name.v)
	}
	if len(rep.found) > before {
		l.read[name.v] = nil
		return nil
	}
	return p
}

// find reads the first file of that name.
func (l *profileLoader) find(name *label, rep *report) *source {
	for _, folder := range l.folders {
		src, err := readFile(filepath.Join(folder, name.v+".yaml"))
		switch {
		case err == nil:
			return src
		case !errors.Is(err, fs.ErrNotExist):
			rep.add(name.at, "make it readable, or choose another profile", "%v", err)
			return nil
		}
	}
	suffix, _ := didYouMean(name.v, l.names())
	rep.add(name.at, "put it into "+ownProfiles+" beside the configuration, or write groups and tags here; those that come with the program are in "+l.folders[1],
		"unknown profile %q%s", name.v, suffix)
	return nil
}

func (l *profileLoader) names() (all []string) {
	for _, folder := range l.folders {
		entries, err := os.ReadDir(folder)
		if err != nil {
			continue // it need not be there
		}
		for _, e := range entries {
			if name, ok := strings.CutSuffix(e.Name(), ".yaml"); ok {
				all = append(all, name)
			}
		}
	}
	return all
}

// mergeKeys gives one section what it does not have and the other does. What is
// given by name, as tags are, is given key by key.
func mergeKeys(to, from []key) {
	for i := range to {
		switch have := to[i].into.(type) {
		case *dict[fileGroup]:
			mergeDict(have, from[i].into.(*dict[fileGroup]))
		case *dict[fileTag]:
			mergeDict(have, from[i].into.(*dict[fileTag]))
		case section:
			if have.as().at.src == nil {
				have.as().at = from[i].into.(section).as().at
			}
			mergeKeys(have.keys(), from[i].into.(section).keys())
		case field:
			if given := from[i].into.(field); !have.written() && given.written() {
				reflect.ValueOf(have).Elem().Set(reflect.ValueOf(given).Elem())
			}
		}
	}
}

// mergeDict puts what the profile has first, in its order.
func mergeDict[T any, S interface {
	*T
	section
}](to, from *dict[T]) {
	own := to.entries
	to.entries = slices.Clone(from.entries)
	if !to.set {
		to.at, to.set = from.at, from.set
	}
	for _, e := range own {
		if given := to.find(e.name); given != nil {
			mergeKeys(S(e.item).keys(), S(given.item).keys())
			*given = e
			continue
		}
		to.entries = append(to.entries, e)
	}
}
