package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxFiles bounds conf.d.
const maxFiles = 256

// Load reads the configuration at path and in the folder conf.d beside it. An
// error is a *Problems if the files could be read.
func Load(path string) (*Config, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find configuration %s: %w", path, err)
	}
	first, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; write one with: headgate init", err)
	}
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	rep := &report{}
	sources, err := readFolder(filepath.Join(dir, "conf.d"), rep)
	if err != nil {
		return nil, err
	}
	host, _ := os.Hostname() // without one, the gateway is called "gateway"
	return parse(append([]*source{first}, sources...), dir, host, rep)
}

// readFolder reads the *.yaml files of dir in the order of their names.
func readFolder(dir string, rep *report) ([]*source, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read folder of configuration: %w; make it readable", err)
	}
	var sources []*source
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		ext := filepath.Ext(name)
		switch {
		case strings.HasPrefix(e.Name(), "."):
		case ext == ".yml":
			rep.add(place{&source{name: name, order: len(entries)}, 1, 1},
				"rename it to "+strings.TrimSuffix(e.Name(), ext)+".yaml, or move it away", "only *.yaml is read here")
		case ext == ".yaml" && len(sources) == maxFiles:
			return nil, fmt.Errorf("read folder of configuration: more than %d files in %s; join some of them", maxFiles, dir)
		case ext == ".yaml":
			s, err := readFile(name)
			if err != nil {
				return nil, err
			}
			s.order = len(sources) + 1
			sources = append(sources, s)
		}
	}
	return sources, nil
}

// readFile reads one byte more than is allowed, for checkText to see.
func readFile(name string) (*source, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for its writer
		return nil, fmt.Errorf("read configuration: %s is not a file; move it away", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w; make it readable for this user", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", name, err)
	}
	return &source{name: name, text: string(data)}, nil
}

// parse turns files into a Config. Relative paths are relative to dir; host is
// what the gateway is called if the files do not say.
func parse(sources []*source, dir, host string, rep *report) (*Config, error) {
	f := &file{}
	f.at = place{sources[0], 1, 1}
	whole := true // no file was left out
	for _, s := range sources {
		before := len(rep.found)
		root := s.parse(rep)
		whole = whole && len(rep.found) == before
		r := &reader{src: s, dir: dir, rep: rep}
		r.section(root, f, "the file")
	}
	if !whole { // what is missing or unknown may stand in the part not read
		return nil, rep.err()
	}
	f.profiles(dir, rep)
	rep.complete(f)
	b := &builder{file: f, rep: rep, config: &Config{written: f}}
	b.build(host)
	if err := rep.err(); err != nil {
		return nil, err
	}
	return b.config, nil
}
