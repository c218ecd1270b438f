package access

import (
	"hash/maphash"
	"strings"
	"sync"
)

// expansions remembers filters with {id} replaced, so that asking again costs
// no allocation. It is bounded: a full shard forgets any one entry.
type expansions struct {
	seed   maphash.Seed
	shards [expansionShards]expansionShard
}

const (
	expansionShards   = 16
	expansionsInShard = 2048 // 32,768 in all, about 100 bytes each
)

type expansionShard struct {
	mu      sync.RWMutex // guards filters
	filters map[expansionKey]string
}

type expansionKey struct {
	slot int
	name string
}

func newExpansions() *expansions {
	e := &expansions{seed: maphash.MakeSeed()}
	for i := range e.shards {
		e.shards[i].filters = make(map[expansionKey]string)
	}
	return e
}

// canExpand reports whether name may take the place of {id}: it must not be
// able to change the number of levels, the wildcards or the '$' of a filter.
func canExpand(name string) bool {
	return name != "" && name[0] != '$' && !strings.ContainsAny(name, "+#/\x00")
}

// get is p's filter with {id} replaced by name, for which canExpand holds.
func (e *expansions) get(p *pattern, name string) string {
	s := &e.shards[maphash.String(e.seed, name)%expansionShards]
	key := expansionKey{p.slot, name}
	s.mu.RLock()
	filter, ok := s.filters[key]
	s.mu.RUnlock()
	if ok {
		return filter
	}
	filter = strings.ReplaceAll(p.filter, placeholder, name)
	key.name = strings.Clone(name) // name may be part of a larger buffer
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.filters) >= expansionsInShard {
		for old := range s.filters {
			delete(s.filters, old)
			break
		}
	}
	s.filters[key] = filter
	return filter
}
