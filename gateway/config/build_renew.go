package config

import (
	"net/url"
	"path/filepath"
)

func (b *builder) renew(l *fileLink) *Renew {
	r := &l.renew
	if r.at.src == nil {
		return nil
	}
	est := r.est.at.src != nil
	out := &Renew{At: 0.66}
	switch {
	case est && r.command.set:
		b.rep.add(r.command.at, "remove est or command", "a certificate is renewed in one way only")
	case !est && !r.command.set:
		b.rep.add(r.at, "add est or command, or remove renew", "renew does not say how")
	}
	if r.part.good() {
		out.At = r.part.v
	}
	if out.At < 0.1 || out.At > 0.95 {
		b.rep.add(r.part.at, "write 0.66 for example", "at is %v: a certificate is renewed after 0.1 to 0.95 of its life", out.At)
	}
	if est {
		b.estServer(&r.est)
		out.EST = &EST{URL: r.est.url.v, CA: r.est.ca.v, Credentials: r.est.credentials.v}
	}
	for _, t := range r.command.items {
		out.Command = append(out.Command, t.v)
	}
	if len(out.Command) > 0 && r.command.items[0].good() && !filepath.IsAbs(out.Command[0]) {
		b.rep.add(r.command.items[0].at, "write its whole path", "the program %q has no absolute path", out.Command[0])
	}
	return out
}

func (b *builder) estServer(e *fileEST) {
	if !e.url.set {
		b.rep.add(e.at, "add url: https://host:port", "est does not say which server")
	}
	if !e.ca.set {
		b.rep.add(e.at, "add ca: the PEM file of the authorities that vouch for the server", "est has no ca to verify the server by")
	}
	u, err := url.Parse(e.url.v)
	if e.url.good() && (err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "") {
		b.rep.add(e.url.at, "write https://host:port; a user's name belongs into the file of credentials", "%q is no EST server", e.url.v)
	}
}
