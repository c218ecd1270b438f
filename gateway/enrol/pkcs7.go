package enrol

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
)

var (
	oidSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidData       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
)

var errNotCertsOnly = errors.New("the answer is not a certs-only PKCS#7 message in DER: see the server's log")

// certsOnly reads the certificates of a degenerate SignedData (RFC 5652, 5.1,
// RFC 7030, 4.1.3): one that signs nothing. Everything else is refused.
func certsOnly(der []byte) ([]*x509.Certificate, error) {
	var info struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"explicit,tag:0"`
	}
	if rest, err := asn1.Unmarshal(der, &info); err != nil || len(rest) > 0 || !info.Type.Equal(oidSignedData) {
		return nil, errNotCertsOnly
	}
	var data struct {
		Version      int
		Digests      asn1.RawValue
		Content      struct{ Type asn1.ObjectIdentifier }
		Certificates asn1.RawValue `asn1:"optional,tag:0"`
		CRLs         asn1.RawValue `asn1:"optional,tag:1"`
		Signers      asn1.RawValue
	}
	rest, err := asn1.Unmarshal(info.Content.Bytes, &data)
	switch {
	case err != nil, len(rest) > 0, !data.Content.Type.Equal(oidData):
		return nil, errNotCertsOnly
	case !isSet(data.Digests), !isSet(data.Signers), len(data.Signers.Bytes) > 0:
		return nil, errNotCertsOnly
	}
	certs, err := x509.ParseCertificates(data.Certificates.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotCertsOnly, err)
	}
	if len(certs) == 0 {
		return nil, errors.New("the answer holds no certificate: see the server's log")
	}
	return certs, nil
}

func isSet(v asn1.RawValue) bool {
	return v.Class == asn1.ClassUniversal && v.Tag == asn1.TagSet && v.IsCompound
}
