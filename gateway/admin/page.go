package admin

import (
	"bytes"
	"fmt"
	"strings"
)

// A page is text in Prometheus' format.
type page struct{ bytes.Buffer }

func (p *page) family(name, kind, help string) {
	fmt.Fprintf(p, "# HELP headgate_%s %s\n# TYPE headgate_%[1]s %[3]s\n", name, help, kind)
}

// one is a family of one value.
func (p *page) one(name, kind, help string, value any) {
	p.family(name, kind, help)
	p.value(name, value)
}

// value is a line of the last family; labels are names and values in turn.
func (p *page) value(name string, value any, labels ...string) {
	p.WriteString("headgate_" + name)
	for i := 0; i < len(labels); i += 2 {
		sep := byte(',')
		if i == 0 {
			sep = '{'
		}
		p.WriteByte(sep)
		p.WriteString(labels[i] + "=" + label(labels[i+1]))
	}
	if len(labels) > 0 {
		p.WriteByte('}')
	}
	fmt.Fprintf(p, " %v\n", value)
}

func (p *page) histogram(name, help string, h *Histogram) {
	p.family(name, "histogram", help)
	var count uint64
	for i := range h.counts {
		count += h.counts[i].Load()
		le := "+Inf"
		if i < len(bounds) {
			le = fmt.Sprint(bounds[i].Seconds())
		}
		p.value(name+"_bucket", count, "le", le)
	}
	p.value(name+"_sum", float64(h.sum.Load())/1e9)
	p.value(name+"_count", count)
}

var escapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func label(s string) string { return `"` + escapes.Replace(s) + `"` }

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}
