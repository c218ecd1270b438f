package gateway

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/headgate-io/headgate/gateway/admin"
	"github.com/headgate-io/headgate/gateway/config"
	"github.com/headgate-io/headgate/gateway/pki"
)

const day = 24 * time.Hour

// alarmDays are how long before the end of a certificate somebody is called.
var alarmDays = []int{1, 7, 14, 30}

// CertificateWarnings tells which certificates end soon. Files that cannot be
// read are left to Check.
func CertificateWarnings(cfg *config.Config, now time.Time) []string {
	var out []string
	for _, c := range expiries(cfg, now) {
		if c.Alarm != "" {
			out = append(out, fmt.Sprintf("%s %s: certificate %s (%s) %s, on %s: %s",
				c.Use, c.Name, c.File, c.Subject, c.Alarm, c.NotAfter.Format(time.DateOnly), c.Cure))
		}
	}
	return out
}

// expiries are the certificates that cfg names, as far as they can be read.
func expiries(cfg *config.Config, now time.Time) []admin.CertificateStatus {
	all := []admin.CertificateStatus{}
	add := func(use, name, file string) {
		if c, ok := expiry(file, use != "link" && use != "listener", now); ok {
			c.Use, c.Name = use, name
			if c.Alarm != "" {
				c.Cure = cureOf(use, name)
			}
			all = append(all, c)
		}
	}
	for _, l := range cfg.Northbound {
		add("link", l.Name, l.Certificate)
		add("link_ca", l.Name, l.CA)
	}
	for _, l := range cfg.Broker.Listeners {
		if l.Plaintext {
			continue
		}
		add("listener", l.Address, l.Certificate)
		if l.ClientCertificate != config.Off {
			add("client_ca", l.Address, l.ClientCA)
		}
		if ca := localCA(l); ca != "" && (l.ClientCertificate == config.Off || ca != l.ClientCA) {
			add("local_ca", l.Address, ca)
		}
	}
	return all
}

// localCA is the CA beside the listener's certificate if its key is there too.
func localCA(l config.Listener) string {
	dir := filepath.Dir(l.Certificate)
	if _, err := os.Stat(filepath.Join(dir, pki.CAKey)); err != nil {
		return ""
	}
	return filepath.Join(dir, pki.CACertificate)
}

// expiry looks at the one certificate of a file that ends first: all of a chain
// are needed. Of a bundle those that have ended do not count while others hold.
func expiry(file string, bundle bool, now time.Time) (admin.CertificateStatus, bool) {
	list, err := pki.InspectAll(file)
	if err != nil {
		return admin.CertificateStatus{}, false
	}
	if bundle {
		hold := slices.DeleteFunc(slices.Clone(list), func(c pki.Info) bool { return now.After(c.NotAfter) })
		if len(hold) > 0 {
			list = hold
		}
	}
	first := slices.MinFunc(list, func(a, b pki.Info) int { return a.NotAfter.Compare(b.NotAfter) })
	return admin.CertificateStatus{
		File: file, Subject: first.Subject, NotAfter: first.NotAfter, Alarm: alarmOf(first.NotBefore, first.NotAfter, now),
	}, true
}

// alarmOf is empty for what holds for long, and for what has more than a third
// of a short life before it: that is renewed by then.
func alarmOf(notBefore, notAfter, now time.Time) string {
	if now.After(notAfter) {
		return "has ended"
	}
	for _, days := range alarmDays {
		left := time.Duration(days) * day
		switch {
		case left > notAfter.Sub(notBefore)/3:
			return ""
		case notAfter.Sub(now) > left:
		case days == 1:
			return "ends within a day"
		default:
			return fmt.Sprintf("ends within %d days", days)
		}
	}
	return ""
}

func cureOf(use, name string) string {
	switch use {
	case "link":
		return fmt.Sprintf("have a new one issued: headgate cert renew --link %s, or headgate cert csr --link %[1]s and headgate cert import --link %[1]s", name)
	case "link_ca":
		return "get the next certificate of the cloud's CA and put it into the file beside this one"
	case "listener":
		return "if the local CA signed it, run headgate cert renew; else replace certificate and key"
	}
	return "make the next CA in another folder, and put both certificates into client_ca and into the clients until all certificates are of the next one"
}
