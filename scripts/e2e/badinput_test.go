package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// row is an input and the one answer that it may have.
type row struct {
	name string
	as   actor
	// request is "METHOD /path", asked of the gateway; "service METHOD /path" goes to a service's own port. $id is a name that no
	// other row has: where it was used there must be no order, payment and shipment of it afterwards.
	request string
	body    string
	header  []string // pairs; an empty value leaves out what would be sent
	status  int
	slug    string // of the problem; empty for an answer that is none
	pointer string // of one of its errors
	note    string // why it is not what the list of bad input says, or what is special
}

// world is what the rows are asked of: made once, and the same after all of them.
type world struct {
	shelf     string // a product with 10 in stock, 3 of them held under held
	held      string
	done      string // a completed order of 2 of the shelf's
	cancelled string // with its payment
	failed    string // without any
	foreign   string // an order of the other tenant
	before    stored
	ids       []string
	mu        sync.Mutex
}

// stored is what may not change.
type stored struct {
	Shelf     product
	Movements int
	Ledger    int // lines of the fixed orders
	Done      order
}

// TestBadInput sends inputs that a platform must refuse, and looks whether any of them left something.
func TestBadInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, table := range []struct {
		name string
		rows []row
	}{
		{"everywhere", everywhere()},
		{"bodies", bodies(w)},
		{"access", access(w)},
		{"gateway", gatewayRows()},
		{"orders", orderRows(w)},
		{"payments", paymentRows(w)},
		{"inventory", inventoryRows(w)},
		{"shipping", shippingRows(w)},
		{"webhooks", webhookRows(w)},
		{"notifications and analytics", readerRows(w)},
		{"interventions", interventionRows()},
	} {
		t.Run(table.name, func(t *testing.T) {
			for _, r := range table.rows {
				t.Run(r.name, func(t *testing.T) { w.check(t, r) })
			}
			t.Logf("%d rows", len(table.rows))
		})
	}
	t.Run("sessions", sessions)
	t.Run("streams", func(t *testing.T) { streamLimit(t) })
	t.Run("nothing is stored", func(t *testing.T) { w.unchanged(t) })
	t.Run("nothing is logged", nothingLogged)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{shelf: shelf(t, 12), held: unique("held")}
	done := basket(t, w.shelf, 2)
	w.done = done.OrderID
	place(t, customer, done)
	w.cancelled, w.failed, w.foreign = unique("o"), unique("o"), unique("o")
	failed := newOrder{OrderID: w.failed, Amount: "5", PaymentMethod: "card", Items: []item{{"no-such-thing", 1}}, Address: berlin()}
	place(t, customer, failed)
	place(t, customer, newOrder{OrderID: w.cancelled, Amount: "5", PaymentMethod: "card_declined"})
	place(t, customer2, newOrder{OrderID: w.foreign, Amount: "5", PaymentMethod: "card"})
	body := map[string]any{"order_id": w.held, "items": []item{{w.shelf, 3}}}
	if err := merchant.do(t, http.MethodPost, "/inventory/reserve", body).into(http.StatusOK, nil); err != nil {
		t.Fatal(err)
	}
	for id, a := range map[string]actor{w.done: customer, w.cancelled: customer, w.failed: customer, w.foreign: customer2} {
		await(t, a, id)
	}
	// The deduction follows the order's end, and so may the last line of its timeline.
	eventually(t, endWithin, func(context.Context) error {
		w.before = w.look(t)
		if w.before.Shelf.OnHand != 10 || !slices.Contains(w.before.Done.events(), "inventory.updated") {
			return fmt.Errorf("%+v", w.before)
		}
		return nil
	})
	return w
}

func (w *world) look(t testing.TB) (s stored) {
	t.Helper()
	s.Shelf = get[product](t, merchant, "/products/"+w.shelf)
	s.Movements = len(get[struct{ Items []json.RawMessage }](t, merchant, "/inventory/movements?limit=100&product_id="+w.shelf).Items)
	s.Done = get[order](t, customer, "/orders/"+w.done)
	all := ledger(t)
	for _, id := range []string{w.done, w.cancelled, w.failed, w.foreign, w.held} {
		s.Ledger += len(all[id])
	}
	return s
}

// unchanged looks at the same things as before the rows, and for traces of what they asked for.
func (w *world) unchanged(t *testing.T) {
	if diff := cmp.Diff(w.before, w.look(t)); diff != "" {
		t.Errorf("before - after +\n%s", diff)
	}
	all := ledger(t)
	for _, id := range w.ids {
		if lines := all[id]; len(lines) > 0 {
			t.Errorf("provider or carrier has heard of %s: %+v", id, lines)
		}
		sent, err := mails(t.Context(), id+"@example.com")
		if err != nil {
			t.Fatal(err)
		}
		if len(sent) > 0 {
			t.Errorf("somebody was told of %s", id)
		}
	}
}

// What may never stand in an answer: names of parts, of files and of functions.
var leak = regexp.MustCompile(`(?i)\bpq:|sqlstate|pgx|pgconn|goroutine|panic|runtime error|\.go\b|/(work|home|root|tmp|usr|app)/|dial tcp|redis|kafka|sarama|postgres|127\.0\.0\.1|localhost|jwx|jws|ed25519`)

// Card numbers and passwords of the rows. They may not come back, and may not be logged.
const (
	pan      = "4242424242424242"
	panSpace = "5555 5555 5555 4444"
	typed    = "Tr0ub4dor-badinput"
)

var secrets = []string{pan, panSpace, strings.ReplaceAll(panSpace, " ", ""), typed}

func (w *world) check(t *testing.T, r row) {
	id := unique("bad")
	fill := func(s string) string { return strings.ReplaceAll(s, "$id", id) }
	got := ask(t, r.as, fill(r.request), fill(r.body), r.header)
	if r.as != nobody && got.slug() == "invalid-token" && !slices.Contains(r.header, "Authorization") {
		fresh(t, r.as) // ten minutes have passed since another test logged in
		got = ask(t, r.as, fill(r.request), fill(r.body), r.header)
	}
	r.verify(t, got)
	if !strings.Contains(r.request+r.body, "$id") {
		return
	}
	w.mu.Lock()
	w.ids = append(w.ids, id)
	w.mu.Unlock()
	for _, path := range []string{"/orders/", "/payments/", "/shipping/"} {
		if left := admin.do(t, http.MethodGet, path+id, nil); left.status != http.StatusNotFound {
			t.Errorf("afterwards there is %s%s: %d %s", path, id, left.status, left.body)
		}
	}
}

// verify checks an answer against all that every bad answer has in common, and against the row.
func (r row) verify(t *testing.T, got reply) {
	t.Helper()
	if got.status != r.status || got.slug() != r.slug {
		t.Errorf("%s: %d %s, want %d %s: %s", got.asked, got.status, got.slug(), r.status, r.slug, bytes.TrimSpace(got.body))
		return
	}
	if r.status < 300 {
		return
	}
	var p struct {
		Type, Title, Detail, Instance, TraceID string
		Status                                 int
		Errors                                 []struct{ Pointer, Detail string }
	}
	var members map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(got.body, &p), json.Unmarshal(got.body, &members)); err != nil {
		t.Errorf("%s: %v: %s", got.asked, err, got.body)
		return
	}
	for name := range members {
		if !slices.Contains([]string{"type", "title", "status", "detail", "instance", "trace_id", "errors"}, name) {
			t.Errorf("member %q in %s", name, got.body)
		}
	}
	if h := got.header.Get("Content-Type"); h != "application/problem+json" {
		t.Errorf("Content-Type %q", h)
	}
	if h := got.header.Get("Cache-Control"); h != "no-store" {
		t.Errorf("Cache-Control %q", h)
	}
	if p.Status != r.status || p.Title == "" {
		t.Errorf("status %d and title %q in %s", p.Status, p.Title, got.body)
	}
	switch {
	case (r.slug == "unauthenticated" || r.slug == "invalid-token") && !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Bearer"):
		t.Errorf("401 with WWW-Authenticate %q", got.header.Get("WWW-Authenticate"))
	case r.status == http.StatusMethodNotAllowed && got.header.Get("Allow") == "" && !strings.Contains(got.asked, "TRACE") && !strings.Contains(got.asked, "CONNECT"):
		// Those two are refused before anybody looks at the path.
		t.Error("405 without Allow")
	case (r.status == http.StatusTooManyRequests || r.status == http.StatusServiceUnavailable) && got.header.Get("Retry-After") == "":
		t.Errorf("%d without Retry-After", r.status)
	}
	if r.pointer != "" && !slices.ContainsFunc(p.Errors, func(e struct{ Pointer, Detail string }) bool { return e.Pointer == r.pointer && e.Detail != "" }) {
		t.Errorf("no error at %s in %s", r.pointer, got.body)
	}
	// The path is the client's own, and may look like anything.
	text := strings.ReplaceAll(string(got.body), p.Instance, "")
	if found := leak.FindString(text); found != "" {
		t.Errorf("%q leaks: %s", found, got.body)
	}
	for _, s := range append([]string{"Bearer ey"}, secrets...) {
		if strings.Contains(text, s) {
			t.Errorf("%q comes back: %s", s, got.body)
		}
	}
}

// plain shows each answer as it is.
var plain = &http.Client{
	Timeout:       20 * time.Second,
	Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 8},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// at is the base URL that a request is for, and the request without its service.
func at(t testing.TB, request string) (base, method, path string) {
	t.Helper()
	base = platform.gateway
	first, rest, _ := strings.Cut(request, " ")
	if strings.ToLower(first) == first {
		base = platform.addresses[first]
		if base == "" {
			t.Skipf("the port of %s is not known here", first)
		}
		request = rest
	}
	method, path, _ = strings.Cut(request, " ")
	return base, method, path
}

// ask sends what the ordinary client would not.
func ask(t testing.TB, a actor, request, body string, header []string) reply {
	t.Helper()
	base, method, path := at(t, request)
	token, err := a.token(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, base+path, in)
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	given := map[string]bool{}
	for i := 0; i+1 < len(header); i += 2 {
		name, value := header[i], header[i+1]
		if !given[name] {
			req.Header.Del(name)
		}
		given[name] = true
		if value != "" {
			req.Header[name] = append(req.Header[name], value)
		}
	}
	resp, err := plain.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK && strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		return reply{resp.StatusCode, resp.Header, nil, request}
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, b, request}
}

// sessions misuses refresh tokens, and looks whether a refused login tells why.
func sessions(t *testing.T) {
	type pair struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
	}
	auth := func(path, token string, in any) reply {
		t.Helper()
		r, err := nobody.send(t.Context(), token, http.MethodPost, "/auth/"+path, nil, in)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	good := func(r reply) (p pair) {
		t.Helper()
		if err := r.into(http.StatusOK, &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	bad := func(r reply, slug string) {
		t.Helper()
		row{status: http.StatusUnauthorized, slug: slug}.verify(t, r)
	}
	refresh := func(token string) reply { return auth("refresh", "", map[string]string{"refresh_token": token}) }
	login := func(user, password string) reply {
		return auth("login", "", map[string]string{"username": user, "password": password})
	}

	// Whether there is such a user is not said.
	trace := regexp.MustCompile(`"trace_id":"[0-9a-f]+"`)
	wrong, unknown := login("merchant2", typed), login(unique("nobody"), typed)
	bad(wrong, "invalid-credentials")
	bad(unknown, "invalid-credentials")
	if diff := cmp.Diff(trace.ReplaceAllString(string(wrong.body), ""), trace.ReplaceAllString(string(unknown.body), "")); diff != "" {
		t.Errorf("wrong password - unknown user +\n%s", diff)
	}

	first := good(login("customer2", "password"))
	bad(refresh(first.Access), "invalid-grant") // an access token is none
	bad(auth("logout", first.Refresh, nil), "invalid-token")
	second := good(refresh(first.Refresh))
	if again := good(refresh(first.Refresh)); again.Refresh != second.Refresh {
		t.Error("whoever lost the answer gets another successor")
	}
	third := good(refresh(second.Refresh))
	bad(refresh(first.Refresh), "token-reuse") // its successor was used: somebody else has it
	bad(refresh(third.Refresh), "invalid-grant")

	session := good(login("customer2", "password"))
	for range 2 {
		if r := auth("logout", session.Access, map[string]string{"refresh_token": session.Refresh}); r.status != http.StatusNoContent {
			t.Errorf("logout: %d %s", r.status, r.body)
		}
	}
	bad(refresh(session.Refresh), "invalid-grant")
}

// streamLimit opens more streams of one user than there may be. Each process of the order service has its own five.
func streamLimit(t *testing.T) {
	if platform.binary == "" {
		t.Skip("how many processes share the limit is not known here")
	}
	s, err := readStatus()
	if err != nil {
		t.Fatal(err)
	}
	processes := 0
	for _, p := range s.Processes {
		if p.Name == "order" || strings.HasPrefix(p.Name, "order-") {
			processes++
		}
	}
	id := unique("o")
	// Of a user that no other story streams as. The order takes 2 s.
	token := fresh(t, merchant2)
	place(t, merchant2, newOrder{OrderID: id, Amount: "5", PaymentMethod: "card_slow"})
	seen := map[int]int{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 5*processes + 1 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, platform.gateway+"/orders/"+id+"/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := plain.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if seen[resp.StatusCode]++; resp.StatusCode == http.StatusTooManyRequests {
			b, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			row{status: http.StatusTooManyRequests, slug: "rate-limited"}.verify(t, reply{resp.StatusCode, resp.Header, b, "GET events"})
		}
	}
	if seen[http.StatusTooManyRequests] == 0 || seen[http.StatusOK] == 0 {
		t.Errorf("streams of one user: %v", seen)
	}
	cancel()
	await(t, merchant2, id)
}

// nothingLogged looks for card numbers and passwords in what the services have written.
func nothingLogged(t *testing.T) {
	if platform.data == "" {
		t.Skip("the logs cannot be seen from here")
	}
	files, err := filepath.Glob(filepath.Join(platform.data, "logs", "*.log"))
	if err != nil || len(files) == 0 {
		t.Fatalf("logs: %v %v", files, err)
	}
	for _, name := range files {
		text, err := tail(name, 16<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range secrets {
			if bytes.Contains(text, []byte(s)) {
				t.Errorf("%s has %q", filepath.Base(name), s)
			}
		}
	}
}

func tail(name string, n int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(max(0, info.Size()-n), io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}
