package gateway

import (
	"crypto/x509"
	"path/filepath"
	"time"

	"github.com/headgate-io/headgate/gateway/config"
	"github.com/headgate-io/headgate/gateway/pki"
)

// clockFile is where the time that was seen last is kept, in the data folder.
const clockFile = "clock"

func (g *Gateway) openClock() {
	var err error
	if g.clock, err = pki.OpenClock(filepath.Join(g.cfg.Gateway.Data, clockFile), g.opt.Built); err != nil {
		g.log.Warn("certificates are judged by the machine's clock alone", "error", err)
	}
	if behind := g.clock.Behind(); behind > 0 {
		g.log.Warn("the clock is wrong: certificates are judged by a later time that is certain; set the clock",
			"clock", time.Now().UTC().Format(time.RFC3339), "judged_by", g.clock.Floor().UTC().Format(time.RFC3339))
	}
}

func linkFiles(l config.Link) pki.ClientFiles {
	return pki.ClientFiles{CA: l.CA, Certificate: l.Certificate, Key: l.Key, CRL: l.CRL, ServerName: l.ServerName, ALPN: l.ALPN}
}

// credentials are a link's TLS files for a gateway that runs.
func (g *Gateway) credentials(l config.Link) *pki.Credentials {
	files := linkFiles(l)
	files.Now = g.clock.Now
	files.Report = func(err error) { g.log.Error("look at the TLS files of a link", "link", l.Name, "error", err) }
	files.Verified = func([]*x509.Certificate) { g.clock.Verified() }
	return pki.NewCredentials(files)
}
