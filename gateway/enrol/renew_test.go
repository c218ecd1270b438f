package enrol

import (
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/pki"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func (e *estServer) renewer(files pki.ClientFiles) *Renewer {
	return New(Config{Link: "cloud", Files: files, CommonName: "gw", At: 0.66, EST: &EST{URL: e.URL, CA: filepath.Join(e.dir, "ca.crt")}})
}

func inspect(t *testing.T, file string) pki.Info {
	t.Helper()
	c, err := pki.Inspect(file)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRenewByEST(t *testing.T) {
	e := newESTServer(t)
	files := e.site(true)
	first := inspect(t, files.Certificate)
	if err := e.renewer(files).Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := inspect(t, files.Certificate)
	if second.Serial == first.Serial || second.KeyDigest == first.KeyDigest || second.Subject != first.Subject || !slices.Equal(second.Names, first.Names) {
		t.Errorf("renewed %+v\nto %+v", first, second)
	}
	if old := inspect(t, files.Certificate+".old"); old.Serial != first.Serial {
		t.Error("the one before is not kept")
	}
	if err := pki.NewCredentials(files).Check(); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(files.Key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key %v %v", info.Mode(), err)
	}
	if want := []string{wellKnown + "/simplereenroll gw", wellKnown + "/cacerts gw"}; !slices.Equal(e.asked, want) {
		t.Errorf("asked %q, want %q", e.asked, want)
	}
	entries, _ := os.ReadDir(filepath.Dir(files.Certificate))
	if len(entries) != 4 {
		t.Errorf("%v: something is left over", entries)
	}
}

func TestFirstByEST(t *testing.T) {
	e := newESTServer(t)
	files := e.site(false)
	r := e.renewer(files)
	if err := r.Once(t.Context()); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("without credentials: %v", err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	r.cfg.EST.Credentials = secret
	for text, want := range map[string]string{
		"gw:wrong\n": "401 Unauthorized (who are you?): let this gateway's certificate, or its credentials, in there",
		"gw":         "are not USER:PASSWORD",
		"gw:secret":  "",
	} {
		os.Remove(files.Certificate)
		if err := os.WriteFile(secret, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := r.Once(t.Context())
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v", text, err)
		}
	}
	os.Remove(files.Certificate)
	os.Chmod(secret, 0o644)
	if err := r.Once(t.Context()); err == nil || !strings.Contains(err.Error(), "open to others") {
		t.Errorf("open to others: %v", err)
	}
}

// Whatever the server answers, the pair stays as it was and works.
func TestWrongAnswers(t *testing.T) {
	e := newESTServer(t)
	files := e.site(true)
	before := inspect(t, files.Certificate)
	status := func(code int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if len(header) > 0 {
				w.Header().Set(header[0], header[1])
			}
			w.WriteHeader(code)
			w.Write([]byte("because\nof this"))
		}
	}
	says := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(text)) }
	}
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		change func(*x509.Certificate)
		want   string
	}{
		"later":         {answer: status(202, "Retry-After", "600"), want: "come again in 10m0s: approve the request there"},
		"forbidden":     {answer: status(403), want: "403 Forbidden (because): let this gateway's certificate"},
		"not found":     {answer: status(404), want: "correct est.url"},
		"elsewhere":     {answer: status(302, "Location", "http://192.0.2.1/"), want: "correct est.url"},
		"broken":        {answer: status(500), want: "500 Internal Server Error (because): see its log"},
		"a page":        {answer: says("<html>hello</html>"), want: "is not base64"},
		"no message":    {answer: says("aGVsbG8="), want: "not a certs-only PKCS#7"},
		"endless":       {answer: says(strings.Repeat("A", maxAnswer+2)), want: "is over 1048576 bytes"},
		"another's":     {answer: func(w http.ResponseWriter, _ *http.Request) { e.certs(w, e.ca.Raw) }, want: "no certificate for our key"},
		"nothing":       {answer: func(w http.ResponseWriter, _ *http.Request) { e.certs(w) }, want: "holds no certificate"},
		"ended already": {change: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }, want: "the new pair is not used"},
		"for servers":   {change: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, want: "not made for clients"},
	} {
		e.mu.Lock()
		e.answer, e.change = tc.answer, tc.change
		e.mu.Unlock()
		if err := e.renewer(files).Once(t.Context()); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
		if inspect(t, files.Certificate).Serial != before.Serial {
			t.Fatalf("%s: the certificate was replaced", name)
		}
	}
	if err := pki.NewCredentials(files).Check(); err != nil {
		t.Error(err)
	}
}

func TestESTServerIsVerified(t *testing.T) {
	e, stranger := newESTServer(t), newESTServer(t)
	r := e.renewer(e.site(true))
	r.cfg.EST.CA = filepath.Join(stranger.dir, "ca.crt")
	if err := r.Once(t.Context()); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("an EST server that nobody vouches for: %v", err)
	}
	if len(e.asked) > 0 {
		t.Errorf("it was asked %q", e.asked)
	}
}

func command(t *testing.T, files pki.ClientFiles, script string) *Renewer {
	t.Helper()
	return New(Config{Link: "cloud", Files: files, CommonName: "gw", At: 0.66, Command: []string{"/bin/sh", "-c", script}, Folder: t.TempDir()})
}

func TestRenewByCommand(t *testing.T) {
	e := newESTServer(t)
	files := e.site(true)
	before := inspect(t, files.Certificate)
	t.Setenv("SECRET_OF_THE_GATEWAY", "x")
	left := filepath.Join(t.TempDir(), "pid")
	for name, tc := range map[string]struct{ script, want string }{
		"fails":          {"echo no such profile >&2; exit 3", "(exit status 3) (no such profile): run it by hand"},
		"leaves nothing": {"exit 0", "left no certificate"},
		"leaves a link":  {"ln -s /etc/hostname $HEADGATE_OUTPUT", "left no certificate"},
		"leaves a pipe":  {"mkfifo $HEADGATE_OUTPUT", "left no certificate"},
		"leaves a key":   {"cp $HEADGATE_KEY $HEADGATE_OUTPUT", "or a PRIVATE KEY"},
		"leaves the old": {"cp $HEADGATE_CERTIFICATE $HEADGATE_OUTPUT", "no certificate for our key"},
		"hangs":          {"sleep 1000 & echo $! >>" + left + "; wait", "was killed"},
		"leaves another": {"sleep 1000 & echo $! >>" + left + "; exit 1", "failed"},
		"leaks":          {`test -z "$SECRET_OF_THE_GATEWAY" && grep -q "CERTIFICATE REQUEST" $HEADGATE_REQUEST && test $HEADGATE_LINK = cloud && echo clean; exit 1`, "(clean)"},
		"says too much":  {"yes | head -c 10000000; exit 1", "(y)"},
	} {
		r := command(t, files, tc.script)
		if name == "hangs" {
			r.patience = 500 * time.Millisecond
		}
		if err := r.Once(t.Context()); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
		if files, _ := os.ReadDir(r.cfg.Folder); len(files) > 0 {
			t.Errorf("%s left %v", name, files)
		}
	}
	if inspect(t, files.Certificate).Serial != before.Serial {
		t.Error("the certificate was replaced")
	}
	text, err := os.ReadFile(left)
	if err != nil {
		t.Fatal(err)
	}
	pids := strings.Fields(string(text))
	if len(pids) != 2 {
		t.Errorf("processes %q", pids)
	}
	for _, pid := range pids {
		for deadline := time.Now().Add(5 * time.Second); ; { // the kernel takes its time
			state, err := os.ReadFile("/proc/" + pid + "/stat")
			if errors.Is(err, os.ErrNotExist) || strings.Contains(string(state), ") Z ") {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("what the command started still runs")
			}
		}
	}
}

// The time to renew is at its part of the life, a little later for each
// certificate otherwise, and the same at each look.
func TestDue(t *testing.T) {
	e := newESTServer(t)
	seen := map[time.Duration]bool{}
	for range 20 {
		files := e.site(true)
		r := e.renewer(files)
		c := inspect(t, files.Certificate)
		life := c.NotAfter.Sub(c.NotBefore)
		first, again := r.due(), r.due()
		part := first.Sub(c.NotBefore)
		if part < life*66/100 || part > life*69/100 || again != first {
			t.Errorf("due after %v of %v", part, life)
		}
		seen[part] = true
	}
	if len(seen) < 10 {
		t.Errorf("20 certificates are due at %d times", len(seen))
	}
}

func TestPauses(t *testing.T) {
	e := newESTServer(t)
	r := e.renewer(e.site(false))
	pause := firstPause
	var total time.Duration
	for range 12 {
		var wait time.Duration
		before := pause
		wait, pause = r.after(errors.New("no"), pause)
		if wait < before/2 || wait > before || pause > maxPause {
			t.Errorf("wait %v of %v, then %v", wait, before, pause)
		}
		total += wait
	}
	if total < 6*time.Hour || !strings.Contains(r.State(), "renewal failed: no; next try ") {
		t.Errorf("%v of pauses; %s", total, r.State())
	}
	if wait, _ := r.after(&laterError{17 * time.Minute}, firstPause); wait != 17*time.Minute {
		t.Errorf("the server's own time: %v", wait)
	}
}
