package httpapi

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
	"github.com/waybill-dev/waybill/services/metrics-processor/internal/wire"
)

const (
	// mostBody bounds a body before and after it is unpacked. Prometheus sends 2,000 samples in some 100 KiB.
	mostBody = 16 << 20
	// patience is how long a body waits for its turn; then the sender is told to come again.
	patience = 500 * time.Millisecond
)

// Source is a format that is taken at a path.
type Source struct {
	Path  string
	Token string // who brings it may send; users and services with the right role may anyway
	Media []string
	// Decoder makes a decoder for a media type, with its parameters.
	Decoder func(media string, parameters map[string]string) (key string, make func() wire.Decoder)
	// Answer answers a body that was taken; nil says 204.
	Answer func(w http.ResponseWriter, media string, dropped uint64)
}

// admit lets pass who brings the source's token, and asks the others for a user's or service's.
func (s *Source) admit(authenticate, only func(http.Handler) http.Handler) func(http.Handler) http.Handler {
	want := sha256.Sum256([]byte("Bearer " + s.Token))
	return func(next http.Handler) http.Handler {
		users := authenticate(only(next))
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got := sha256.Sum256([]byte(r.Header.Get("Authorization")))
			if s.Token != "" && subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
				next.ServeHTTP(w, r)
				return
			}
			users.ServeHTTP(w, r)
		})
	}
}

// intake bounds how many bodies are worked on at once. There is no queue behind it: when a sender is answered its samples are in
// the windows or booked as dropped, and who cannot be served in time is told so.
type intake struct {
	a     *aggregate.Aggregator
	slots chan struct{}
	mu    sync.Mutex
	idle  map[string][]wire.Decoder
}

func newIntake(a *aggregate.Aggregator) *intake {
	// One works while another waits for its body's next bytes.
	return &intake{a: a, slots: make(chan struct{}, 2*runtime.GOMAXPROCS(0)), idle: map[string][]wire.Decoder{}}
}

func (in *intake) take(key string, make func() wire.Decoder) wire.Decoder {
	in.mu.Lock()
	defer in.mu.Unlock()
	if n := len(in.idle[key]); n > 0 {
		d := in.idle[key][n-1]
		in.idle[key] = in.idle[key][:n-1]
		return d
	}
	return make()
}

func (in *intake) give(key string, d wire.Decoder) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.idle[key] = append(in.idle[key], d) // as many as there are slots
}

var bodies = sync.Pool{New: func() any { return new(body) }}

type body struct {
	raw      bytes.Buffer
	unpacked []byte
}

func (in *intake) handler(s *Source) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		media, parameters, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil || !contains(s.Media, media) {
			return problem.New(http.StatusUnsupportedMediaType, "unsupported-media-type", "send "+strings.Join(s.Media, " or "))
		}
		key, make := s.Decoder(media, parameters)
		if make == nil {
			return problem.New(http.StatusUnsupportedMediaType, "unsupported-media-type", "this message is not known")
		}
		b := bodies.Get().(*body)
		defer bodies.Put(b)
		data, err := b.read(w, r)
		if err != nil {
			return err
		}
		if err := in.enter(r.Context()); err != nil {
			return err
		}
		d := in.take(key, make)
		err = d.Decode(data)
		var dropped uint64
		for _, n := range d.Dropped() {
			dropped += n
		}
		in.give(key, d)
		<-in.slots
		if err != nil {
			return problem.New(http.StatusBadRequest, "malformed", "the body cannot be read to its end; what stood before the fault was taken")
		}
		if s.Answer != nil {
			s.Answer(w, media, dropped)
			return nil
		}
		w.Header().Set("X-Samples-Dropped", strconv.FormatUint(dropped, 10))
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func (in *intake) enter(ctx context.Context) error {
	select {
	case in.slots <- struct{}{}:
		return nil
	default:
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case in.slots <- struct{}{}:
		return nil
	case <-t.C:
		return problem.New(http.StatusServiceUnavailable, "overloaded", "more comes in than can be aggregated").After(time.Second)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *body) read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	tooLarge := problem.New(http.StatusRequestEntityTooLarge, "too-large", fmt.Sprintf("a body has at most %d bytes, unpacked too", mostBody))
	malformed := problem.New(http.StatusBadRequest, "malformed", "the body cannot be unpacked")
	b.raw.Reset()
	if _, err := b.raw.ReadFrom(http.MaxBytesReader(w, r.Body, mostBody)); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return nil, tooLarge
		}
		return nil, problem.New(http.StatusBadRequest, "malformed", "the body ends too early").Because(err)
	}
	switch r.Header.Get("Content-Encoding") {
	case "", "identity":
		return b.raw.Bytes(), nil
	case "snappy":
		n, err := s2.DecodedLen(b.raw.Bytes())
		if err != nil {
			return nil, malformed
		}
		if n > mostBody {
			return nil, tooLarge
		}
		if b.unpacked, err = s2.Decode(b.unpacked[:cap(b.unpacked)], b.raw.Bytes()); err != nil {
			return nil, malformed
		}
		return b.unpacked, nil
	case "gzip":
		z, err := gzip.NewReader(&b.raw)
		if err != nil {
			return nil, malformed
		}
		out := bytes.NewBuffer(b.unpacked[:0])
		n, err := out.ReadFrom(io.LimitReader(z, mostBody+1))
		b.unpacked = out.Bytes()
		if err != nil {
			return nil, malformed
		}
		if n > mostBody {
			return nil, tooLarge
		}
		return b.unpacked, nil
	}
	return nil, problem.New(http.StatusUnsupportedMediaType, "unsupported-media-type", "Content-Encoding is snappy, gzip or none")
}

// Tokens are the tokens of the sources.
type Tokens struct{ RemoteWrite, OTLP, JSON string }

// Sources are the formats that are taken over HTTP, booked under the given sources.
func Sources(a *aggregate.Aggregator, t Tokens, write, otlp, lines *aggregate.Source) []*Source {
	former := wire.NewFormer()
	return []*Source{
		{
			Path: "/api/v1/write", Token: t.RemoteWrite, Media: []string{"application/x-protobuf"},
			Decoder: func(_ string, parameters map[string]string) (string, func() wire.Decoder) {
				switch parameters["proto"] {
				case "", "prometheus.WriteRequest":
					return "write1", func() wire.Decoder { return wire.NewRemoteWrite1(a, write) }
				case "io.prometheus.write.v2.Request":
					return "write2", func() wire.Decoder { return wire.NewRemoteWrite2(a, write) }
				}
				return "", nil
			},
		},
		{
			Path: "/v1/metrics", Token: t.OTLP, Media: []string{"application/x-protobuf", "application/json"},
			Decoder: func(media string, _ map[string]string) (string, func() wire.Decoder) {
				if media == "application/json" {
					return "otlpjson", func() wire.Decoder { return wire.OTLPJSON{OTLP: wire.NewOTLP(a, otlp, former)} }
				}
				return "otlp", func() wire.Decoder { return wire.NewOTLP(a, otlp, former) }
			},
			Answer: answerOTLP,
		},
		{
			Path: "/ingest/json", Token: t.JSON, Media: []string{"application/x-ndjson", "application/json", "text/plain"},
			Decoder: func(string, map[string]string) (string, func() wire.Decoder) {
				return "json", func() wire.Decoder { return wire.NewJSON(a, lines) }
			},
		},
	}
}

// answerOTLP writes ExportMetricsServiceResponse in the format of the request, with partial_success where points were dropped.
func answerOTLP(w http.ResponseWriter, media string, dropped uint64) {
	const why = "late, not finite, or of a type that is not aggregated"
	var b []byte
	switch {
	case media == "application/json" && dropped > 0:
		b = fmt.Appendf(nil, `{"partialSuccess":{"rejectedDataPoints":"%d","errorMessage":%q}}`, dropped, why)
	case media == "application/json":
		b = []byte("{}")
	case dropped > 0:
		part := binary.AppendUvarint([]byte{1 << 3}, dropped)
		part = append(append(part, 2<<3|2, byte(len(why))), why...)
		b = append([]byte{1<<3 | 2, byte(len(part))}, part...)
	}
	w.Header().Set("Content-Type", media)
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(b)
}
