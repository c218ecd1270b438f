package enrol

import (
	"bytes"
	"os"
	"testing"
)

func sample(t testing.TB) []byte {
	t.Helper()
	der, err := os.ReadFile("testdata/certs-only.p7") // by openssl crl2pkcs7 -nocrl
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestCertsOnly(t *testing.T) {
	der := sample(t)
	certs, err := certsOnly(der)
	if err != nil || len(certs) != 2 || certs[0].Subject.CommonName != "Test CA" || certs[1].Subject.CommonName != "gw" {
		t.Fatalf("%v, %v", certs, err)
	}
	for name, wrong := range map[string][]byte{
		"empty":         {},
		"cut":           der[:len(der)-1],
		"more behind":   append(bytes.Clone(der), 0),
		"another type":  bytes.Replace(der, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02}, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03}, 1),
		"other content": bytes.Replace(der, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01}, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x05}, 1),
		"a certificate": certs[0].Raw,
		"BER":           append([]byte{0x30, 0x80}, der[4:]...),
		"signed":        signed(der),
		"damaged":       bytes.Replace(der, certs[1].Raw[:8], make([]byte, 8), 1),
	} {
		if got, err := certsOnly(wrong); err == nil {
			t.Errorf("%s: %d certificates", name, len(got))
		}
	}
}

// signed has one signer, of two bytes, at its end.
func signed(der []byte) []byte {
	der = append(bytes.Clone(der[:len(der)-2]), 0x31, 0x02, 0x05, 0x00)
	for _, at := range []int{2, 17, 21} { // the lengths of what lies around it: two bytes each
		n := int(der[at])<<8 | int(der[at+1])
		der[at], der[at+1] = byte((n+2)>>8), byte(n+2)
	}
	return der
}

func FuzzCertsOnly(f *testing.F) {
	f.Add(sample(f))
	f.Fuzz(func(t *testing.T, der []byte) {
		if certs, err := certsOnly(der); err == nil && len(certs) == 0 {
			t.Error("nothing, without an error")
		}
	})
}
