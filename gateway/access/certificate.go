package access

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A CertificateRole gives roles to those who prove themselves with a
// certificate.
type CertificateRole struct {
	Match string // identity; '*' stands for any text, nothing else is special
	Roles []string
}

// clientURN is how a certificate that the local house issues carries its
// identity: a URI "urn:headgate:client:NAME" among the alternative names.
const clientURN = "urn:headgate:client:"

// certificateName reads the identity out of a verified certificate: from its
// alternative names, that is the one URI "urn:headgate:client:NAME", or, in
// certificates of other houses, the first DNS name; or, when from is "cn", the
// subject's common name. Names that CheckName refuses are refused.
func certificateName(c *x509.Certificate, from string) (string, error) {
	var name string
	switch from {
	case "cn":
		name = c.Subject.CommonName
		if name == "" {
			return "", errors.New("the certificate has no common name")
		}
	default:
		names := clientNames(c)
		if len(names) > 1 {
			return "", errors.New("the certificate carries several identities: issue one for each client")
		}
		if len(names) == 0 && len(c.DNSNames) > 0 {
			names = c.DNSNames
		}
		if len(names) == 0 {
			return "", errors.New("the certificate carries no identity: issue it with one, or set access.certificate_name to cn")
		}
		name = names[0]
	}
	if err := CheckName(name); err != nil {
		return "", fmt.Errorf("read the certificate's identity: %w", err)
	}
	return name, nil
}

func clientNames(c *x509.Certificate) []string {
	var names []string
	for _, u := range c.URIs {
		// All of the URI counts: what is behind "?" or "#" is no part of a name,
		// and CheckName refuses it.
		if name, ok := strings.CutPrefix(u.String(), clientURN); ok {
			names = append(names, name)
		}
	}
	return names
}

func certificateRoles(list []CertificateRole, name string) []string {
	var roles []string
	for _, c := range list {
		if !matchName(c.Match, name) {
			continue
		}
		for _, role := range c.Roles {
			if !slices.Contains(roles, role) {
				roles = append(roles, role)
			}
		}
	}
	return roles
}

// matchName reports whether name matches pattern, in which '*' stands for any
// text, the empty one included.
func matchName(pattern, name string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == name
	}
	name, ok := strings.CutPrefix(name, head)
	if !ok {
		return false
	}
	for {
		part, next, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(name, part)
		}
		i := strings.Index(name, part) // the first place leaves the most for the rest
		if i < 0 {
			return false
		}
		name, rest = name[i+len(part):], next
	}
}
