package inbox

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/waybill-dev/waybill/libs/failpoint"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/libs/problem"
)

// Request names a request that may come again.
type Request struct {
	Caller      string // "tenant/subject": another caller's same key is another key
	Route       string // method and pattern, such as "POST /things"
	Key         string // see KeyFrom
	Fingerprint [32]byte
}

// id is the request without what it was about.
func (r Request) id() Request { return Request{Caller: r.Caller, Route: r.Route, Key: r.Key} }

// Response is the answer that a duplicate gets again.
type Response struct {
	Status      int
	ContentType string
	Location    string
	Body        []byte
}

// Write sends the answer. A replay says so.
func (r Response) Write(w http.ResponseWriter, replayed bool) error {
	h := w.Header()
	h.Set("Content-Type", r.ContentType)
	if r.Location != "" {
		h.Set("Location", r.Location)
	}
	if replayed {
		h.Set("Idempotent-Replayed", "true")
	}
	w.WriteHeader(r.Status)
	_, err := w.Write(r.Body)
	return err
}

// Responses are the stored answers of a batch of requests.
type Responses struct {
	found map[Request]stored // by id
}

type stored struct {
	fingerprint []byte
	Response
}

// FindResponses queues one read for the answers of all requests. Ask the result after u.Fetch.
func FindResponses(u *pg.Unit, rs []Request) *Responses {
	found := &Responses{found: make(map[Request]stored)}
	callers, routes, keys := columns(rs)
	u.Read(`SELECT i.caller, i.route, i.key, i.fingerprint, i.status, i.content_type, i.location, i.body
		FROM unnest($1::text[], $2::text[], $3::text[]) AS r(caller, route, key), LATERAL
			(SELECT * FROM idempotency_keys i WHERE i.key = r.key AND i.route = r.route AND i.caller = r.caller OFFSET 0) i`,
		callers, routes, keys).Query(func(rows pgx.Rows) error {
		var id Request
		var s stored
		_, err := pgx.ForEachRow(rows, []any{&id.Caller, &id.Route, &id.Key, &s.fingerprint, &s.Status, &s.ContentType, &s.Location, &s.Body},
			func() error {
				found.found[id] = s
				s.fingerprint, s.Body = nil, nil
				return nil
			})
		return err
	})
	return found
}

// Get returns the stored answer of a request. A key that was used for another request is an error: 422
// idempotency-key-reused.
func (rs *Responses) Get(r Request) (Response, bool, error) {
	s, ok := rs.found[r.id()]
	if !ok {
		return Response{}, false, nil
	}
	if string(s.fingerprint) != string(r.Fingerprint[:]) {
		return Response{}, false, problem.New(http.StatusUnprocessableEntity, "idempotency-key-reused",
			"the Idempotency-Key was used for another request")
	}
	return s.Response, true, nil
}

// StoreResponses queues the answers, out[n] for rs[n]; they become true with the effect. Queue it before the effect's own
// inserts: where a concurrent duplicate was faster, this waits for it and then fails the unit with 40001, so that pg.Do runs
// it again and FindResponses finds the answer. (An effect's 23505 that comes first means the same and is the caller's to
// run again.) Answers that executed nothing (400, 401, 403, 413, 415, 422, 429) and 5xx are not stored. Of requests with the
// same caller, route and key the first counts.
func StoreResponses(u *pg.Unit, rs []Request, out []Response) {
	seen := make(map[Request]bool, len(rs))
	var unique []Request
	var prints, bodies [][]byte
	var statuses []int16
	var media, locations []string
	for n, r := range rs {
		if seen[r.id()] {
			continue
		}
		seen[r.id()] = true
		unique = append(unique, r)
		prints, bodies = append(prints, r.Fingerprint[:]), append(bodies, append([]byte{}, out[n].Body...))
		statuses, media, locations = append(statuses, int16(out[n].Status)), append(media, out[n].ContentType), append(locations, out[n].Location)
	}
	if len(unique) == 0 {
		return
	}
	callers, routes, keys := columns(unique)
	// Sorted: two batches that share several keys must not wait for each other.
	u.Guard(len(unique), `INSERT INTO idempotency_keys (caller, route, key, fingerprint, status, content_type, location, body)
		SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::smallint[], $6::text[], $7::text[], $8::bytea[])
			AS r(caller, route, key, fingerprint, status, content_type, location, body)
		ORDER BY key COLLATE "C", route COLLATE "C", caller COLLATE "C" ON CONFLICT DO NOTHING`,
		callers, routes, keys, prints, statuses, media, locations, bodies)
	if failpoint.Enabled {
		u.AfterCommit(func() { _ = failpoint.Hit("idem.after_effect") })
	}
}

func columns(rs []Request) (callers, routes, keys []string) {
	for _, r := range rs {
		callers, routes, keys = append(callers, r.Caller), append(routes, r.Route), append(keys, r.Key)
	}
	return callers, routes, keys
}

// KeyFrom reads the header Idempotency-Key, bare or as a quoted string of RFC 8941 (3.3.3), 1 to 255 visible ASCII
// characters. Without the header fallback stands in, the id that the request is about.
func KeyFrom(r *http.Request, fallback string) (string, error) {
	values := r.Header.Values("Idempotency-Key")
	if len(values) == 0 {
		if fallback == "" {
			return "", problem.New(http.StatusBadRequest, "idempotency-key-missing", "the request needs an Idempotency-Key; an order_id in the body will do, where it takes one")
		}
		return fallback, nil
	}
	key := strings.TrimSpace(values[0])
	ok := len(values) == 1
	if strings.HasPrefix(key, `"`) {
		key, ok = unquote(key, ok)
	}
	if len(key) < 1 || len(key) > 255 {
		ok = false
	}
	for _, c := range []byte(key) {
		ok = ok && c > ' ' && c < 0x7f
	}
	if !ok {
		return "", problem.New(http.StatusBadRequest, "idempotency-key-invalid",
			"an Idempotency-Key is 1 to 255 visible ASCII characters, bare or in double quotes")
	}
	return key, nil
}

// unquote takes a quoted string apart, in which only quote and backslash are escaped.
func unquote(s string, ok bool) (string, bool) {
	var b strings.Builder
	for n := 1; n < len(s); n++ {
		switch {
		case s[n] == '"':
			return b.String(), ok && n == len(s)-1
		case s[n] == '\\' && n+1 < len(s) && (s[n+1] == '"' || s[n+1] == '\\'):
			n++
		case s[n] == '\\':
			return "", false
		}
		b.WriteByte(s[n])
	}
	return "", false
}

// Fingerprint says what a key was used for: SHA-256 over method, route, caller's subject and the body as it was understood.
// The body is marshalled as JSON, so the order of its members and its white space do not count. It panics where the body
// cannot be marshalled.
func Fingerprint(method, route, subject string, canonicalBody any) [32]byte {
	body, err := json.Marshal(canonicalBody)
	if err != nil {
		panic(fmt.Sprintf("inbox: fingerprint of %T: %v", canonicalBody, err))
	}
	var data []byte
	for _, part := range [][]byte{[]byte(method), []byte(route), []byte(subject), body} {
		data = append(binary.AppendUvarint(data, uint64(len(part))), part...)
	}
	return sha256.Sum256(data)
}
