package gateway

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/headgate-io/headgate/gateway/admin"
	"github.com/headgate-io/headgate/gateway/config"
	"github.com/headgate-io/headgate/gateway/enrol"
	"github.com/headgate-io/headgate/gateway/pki"
	"github.com/headgate-io/headgate/storequeue"
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

// LinkFiles are the TLS files of a link.
func LinkFiles(l config.Link) pki.ClientFiles {
	return pki.ClientFiles{CA: l.CA, Certificate: l.Certificate, Key: l.Key, CRL: l.CRL, ServerName: l.ServerName, ALPN: l.ALPN}
}

// credentials are a link's TLS files for a gateway that runs.
func (g *Gateway) credentials(l config.Link) *pki.Credentials {
	files := LinkFiles(l)
	files.Now = g.clock.Now
	files.Report = func(err error) { g.log.Error("look at the TLS files of a link", "link", l.Name, "error", err) }
	files.Verified = func([]*x509.Certificate) { g.clock.Verified() }
	return pki.NewCredentials(files)
}

// renewer is nil for a link whose certificate is renewed by hand.
func (g *Gateway) renewer(l config.Link) *enrol.Renewer {
	if l.Renew == nil {
		return nil
	}
	cfg := renewal(l, g.cfg.Gateway.Data)
	cfg.Files.Now, cfg.Logger = g.clock.Now, g.log
	return enrol.New(cfg)
}

// Renewer renews the certificate of a link now, for a program beside the
// gateway's. The link must have Renew.
func Renewer(cfg *config.Config, l config.Link) *enrol.Renewer {
	return enrol.New(renewal(l, cfg.Gateway.Data))
}

func renewal(l config.Link, folder string) enrol.Config {
	cfg := enrol.Config{
		Link: l.Name, Files: LinkFiles(l), CommonName: l.ClientID, At: l.Renew.At, Command: l.Renew.Command, Folder: folder,
	}
	if e := l.Renew.EST; e != nil {
		cfg.EST = &enrol.EST{URL: e.URL, CA: e.CA, Credentials: e.Credentials}
	}
	return cfg
}

// alarmTopic is where the state of certificates is told, below hg/{gateway}/.
const alarmTopic = "alarm/certificate"

// alarmFile holds what was told last, in the data folder.
const alarmFile = "certificate-alarm"

// certificates are what the watcher saw last.
type certificates struct {
	mu   sync.Mutex // covers all
	all  []admin.CertificateStatus
	told string // used by the watcher only
}

func (g *Gateway) certificateStatus() []admin.CertificateStatus {
	g.certs.mu.Lock()
	all := append([]admin.CertificateStatus{}, g.certs.all...)
	g.certs.mu.Unlock()
	for i := range all {
		for _, l := range g.links {
			if all[i].Use == "link" && all[i].Name == l.name && l.renewer != nil {
				all[i].Renewal = l.renewer.State()
			}
		}
	}
	return all
}

const certificatePause = time.Minute // between looks at the dates

// watchCertificates raises alarms before certificates end, makes links use
// renewed ones, and keeps the time that is certain.
func (g *Gateway) watchCertificates(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	if told, err := os.ReadFile(g.alarmPath()); err == nil {
		g.certs.told = string(told)
	}
	var looked time.Time
	for {
		if looked.IsZero() || time.Since(looked) >= certificatePause {
			looked = time.Now()
			g.lookAtCertificates(ctx)
		}
		for _, l := range g.links {
			g.freshen(l)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// freshen makes a link connect anew with changed files: at once if what it uses
// ends, else when nothing waits and nothing is in flight, so that it is known
// soon whether the cloud takes them and nobody is kept waiting.
func (g *Gateway) freshen(l *link) {
	s := l.Stats()
	if !s.Connected {
		return
	}
	switch change := l.tls.Changed(); {
	case change == pki.Ended, change == pki.Renewed && s.InFlight == 0 && g.waiting(l) == 0:
		g.log.Info("the link connects anew with changed certificates", "link", l.name)
		l.Reconnect()
	}
}

// waiting is how many messages wait for a link, in all lanes.
func (g *Gateway) waiting(l *link) (n uint64) {
	for _, r := range g.queue.Stats().Readers {
		if name, _, isLink := splitReader(r.Name, g.cfg.Queue); isLink && name == l.name {
			n += r.Waiting
		}
	}
	return n
}

func (g *Gateway) lookAtCertificates(ctx context.Context) {
	if err := g.clock.Keep(); err != nil {
		g.log.Error("keep the time: trying again", "error", err)
	}
	all := expiries(g.cfg, g.clock.Now())
	g.certs.mu.Lock()
	before := g.certs.all
	g.certs.all = all
	g.certs.mu.Unlock()
	for _, c := range all {
		if c.Alarm != "" && !slices.ContainsFunc(before, func(b admin.CertificateStatus) bool {
			return b.Use == c.Use && b.Name == c.Name && b.Alarm == c.Alarm
		}) {
			g.log.Error("a certificate needs somebody", "event", "certificate", "alarm", c.Alarm, "use", c.Use, "name", c.Name,
				"file", c.File, "not_after", c.NotAfter.Format(time.RFC3339), "cure", c.Cure)
		}
	}
	g.tellAlarms(ctx, all)
}

// An alarm is a certificate in the announcement; its JSON names are stable.
type alarm struct {
	Use      string `json:"use"`
	Name     string `json:"name"`
	File     string `json:"file"`
	Subject  string `json:"subject"`
	NotAfter int64  `json:"not_after"` // Unix milliseconds
	Alarm    string `json:"alarm"`
	Cure     string `json:"cure"`
}

// tellAlarms publishes all alarms, retained, when they are others than before,
// also in a former life: none is an empty list.
func (g *Gateway) tellAlarms(ctx context.Context, all []admin.CertificateStatus) {
	alarms := []alarm{}
	for _, c := range all {
		if c.Alarm != "" {
			alarms = append(alarms, alarm{c.Use, c.Name, c.File, c.Subject, c.NotAfter.UnixMilli(), c.Alarm, c.Cure})
		}
	}
	payload, err := json.Marshal(map[string][]alarm{"certificates": alarms})
	if string(payload) == g.certs.told || g.certs.told == "" && len(alarms) == 0 {
		return
	}
	if err == nil {
		err = g.broker.Publish(ctx, self, storequeue.Message{
			Topic: "hg/" + g.cfg.Gateway.ID + "/" + alarmTopic, Payload: payload, QoS: 1, Retain: true, Text: true, ContentType: "application/json",
		})
	}
	if err == nil {
		g.certs.told = string(payload)
		err = writeWhole(g.alarmPath(), payload)
	}
	if err != nil {
		g.log.Error("announce alarms of certificates", "error", err)
	}
}

func (g *Gateway) alarmPath() string { return filepath.Join(g.cfg.Gateway.Data, alarmFile) }
