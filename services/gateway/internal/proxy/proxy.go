// Package proxy passes requests on to the services.
//
// A request arrives at a service as it came, less everything that could be mistaken for something the gateway said: hop-by-hop headers
// (also those that Connection names), forwarding headers, identity headers. The user's token is passed on, and the service checks it
// itself: no header of the gateway's is a proof of anything.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/failpoint"
	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/libs/telemetry"
	"github.com/waybill-dev/waybill/services/gateway/internal/address"
	"github.com/waybill-dev/waybill/services/gateway/internal/route"
)

const (
	// maxIdle is per service: as many connections as a benchmark has callers, so that none is opened for one request.
	maxIdle     = 256
	maxConns    = 1024
	idleTimeout = 50 * time.Second // below the services' 60 s, so that we close first and no request meets a closing connection
	dialTimeout = 2 * time.Second
	// headerTimeout also bounds streams, which have no other time-out.
	headerTimeout = 20 * time.Second
	// writeTimeout is what one write of a stream may take: a reader that is slower is gone.
	writeTimeout = 10 * time.Second
	retryPause   = 100 * time.Millisecond
	// maxBody is above every service's own limit, so that a service says 413 in its own words, but bounds what is passed on.
	maxBody = 8 << 20
)

// Options is what a proxy needs.
type Options struct {
	Upstreams map[route.Service]string // base URLs
	Addresses address.Book
	Draining  <-chan struct{} // streams end when it is closed
	Log       *zap.Logger
}

// Proxy passes requests on.
type Proxy struct {
	upstreams map[route.Service]*url.URL
	transport http.RoundTripper
	addresses address.Book
	draining  <-chan struct{}
	log       *log.Logger
}

// New makes a proxy.
func New(o Options) (*Proxy, error) {
	p := &Proxy{upstreams: map[route.Service]*url.URL{}, addresses: o.Addresses, draining: o.Draining}
	for service, text := range o.Upstreams {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return nil, fmt.Errorf("address %q of %s is not a URL", text, service)
		}
		p.upstreams[service] = u
	}
	p.log, _ = zap.NewStdLogAt(o.Log, zap.DebugLevel) // copy errors; the request's own line says the same
	p.transport = telemetry.Transport(retrying{&http.Transport{
		DialContext:           (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		MaxIdleConns:          0,
		MaxIdleConnsPerHost:   maxIdle,
		MaxConnsPerHost:       maxConns,
		IdleConnTimeout:       idleTimeout,
		ResponseHeaderTimeout: headerTimeout,
		DisableCompression:    true, // bytes pass as they are
	}})
	return p, nil
}

// Transport is the way to the services, for what the gateway asks them itself.
func (p *Proxy) Transport() http.RoundTripper { return p.transport }

// Handler passes the requests of one route on.
func (p *Proxy) Handler(to route.Route) (http.Handler, error) {
	upstream, ok := p.upstreams[to.To]
	if !ok {
		return nil, fmt.Errorf("route %s: no address of %s", to.Pattern, to.To)
	}
	reverse := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { p.rewrite(r, upstream, to) },
		Transport:      p.transport,
		ErrorHandler:   fail,
		ErrorLog:       p.log,
		BufferPool:     buffers,
		ModifyResponse: clean,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set(telemetry.RequestID, w.Header().Get(telemetry.RequestID))
		if r.ContentLength > maxBody {
			problem.Write(w, r, problem.New(http.StatusRequestEntityTooLarge, "body-too-large", "the body is too large"))
			return
		}
		body := &incoming{ReadCloser: http.MaxBytesReader(w, r.Body, maxBody)}
		r = r.WithContext(context.WithValue(r.Context(), incoming{}, body))
		r.Body = body
		if to.Timeout > 0 {
			ctx, cancel := context.WithTimeout(r.Context(), to.Timeout)
			defer cancel()
			reverse.ServeHTTP(w, r.WithContext(ctx))
			return
		}
		p.stream(reverse, w, r)
	}), nil
}

// incoming is the client's body, and its own key in the context. What goes wrong with it is the client's doing, and must not look like the
// service's. The error is kept because it need not arrive: net/http also cancels the request, and the transport may see that first.
type incoming struct {
	io.ReadCloser
	err error // the transport has done with the body before it gives up
}

func (b *incoming) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// stream has no end of its own: it ends with its reader, its service, or the gateway.
func (p *Proxy) stream(reverse http.Handler, w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		select {
		case <-p.draining:
			cancel()
		case <-ctx.Done():
		}
	}()
	reverse.ServeHTTP(&patient{w, http.NewResponseController(w)}, r.WithContext(ctx))
}

// patient gives each write a deadline of its own in place of the server's for the whole answer.
type patient struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (p *patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }

func (p *patient) WriteHeader(status int) {
	_ = p.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	p.ResponseWriter.WriteHeader(status)
}

func (p *patient) Write(b []byte) (int, error) {
	_ = p.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	return p.ResponseWriter.Write(b)
}

// rewrite makes the outgoing request. httputil has removed hop-by-hop and X-Forwarded headers from it before; it does so after a Director,
// which is why a Director's own headers can be taken away by a client's Connection header, and a Rewrite's cannot.
func (p *Proxy) rewrite(r *httputil.ProxyRequest, upstream *url.URL, to route.Route) {
	if to.Strip != "" {
		strip(r.Out.URL, to)
	}
	r.SetURL(upstream)
	for name := range r.Out.Header {
		if spoofed(name) {
			r.Out.Header.Del(name)
		}
	}
	r.Out.Header.Del("Cookie") // no service has a use for one, so none can come to trust one
	r.Out.Header.Set("X-Forwarded-For", p.addresses.Client(r.In).String())
	r.Out.Header.Set("X-Forwarded-Host", r.In.Host)
	r.Out.Header.Set("X-Forwarded-Proto", "http")
	if r.In.TLS != nil {
		r.Out.Header.Set("X-Forwarded-Proto", "https")
	}
	// An upgrade would take the connection out of everybody's sight.
	r.Out.Header.Del("Upgrade")
	r.Out.Header.Del("Connection")
}

// strip takes the prefix off that the service does not know; interventions keep their own name.
func strip(u *url.URL, to route.Route) {
	rest := strings.TrimPrefix(u.Path, to.Strip)
	if strings.HasPrefix(to.Strip, "/interventions/") {
		rest = "/interventions" + rest
	}
	u.Path, u.RawPath = rest, ""
	if u.Path == "" {
		u.Path = "/"
	}
}

// spoofed says whether a header is one that only a trusted hop would set. Names with an underscore never get here.
func spoofed(name string) bool {
	name = strings.ToLower(name)
	for _, prefix := range []string{"x-user", "x-internal", "x-forwarded", "x-auth", "x-tenant", "x-original", "x-real", "x-client"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return name == "forwarded" || name == "true-client-ip" || name == "x-rewrite-url"
}

// clean removes from an answer what the gateway says itself.
func clean(r *http.Response) error {
	r.Header.Del(telemetry.RequestID)
	r.Header.Del("Server")
	return failpoint.Hit("gw.after_upstream")
}

// fail answers where a service did not.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	var tooLarge *http.MaxBytesError
	var p *problem.Problem
	if body, _ := r.Context().Value(incoming{}).(*incoming); body != nil && body.err != nil {
		err = body.err
		p = problem.New(http.StatusBadRequest, "malformed-request", "the body cannot be read")
	}
	switch {
	case errors.As(err, &tooLarge):
		p = problem.New(http.StatusRequestEntityTooLarge, "body-too-large", "the body is too large")
	case p != nil && timeout(err):
		p = problem.New(http.StatusRequestTimeout, "request-timeout", "the body took too long")
	case p != nil:
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), timeout(err):
		p = problem.New(http.StatusGatewayTimeout, "upstream-timeout", "the service did not answer in time")
	case errors.Is(err, context.Canceled):
		// The client has gone, or the gateway is draining a stream: nobody reads an answer.
		panic(http.ErrAbortHandler)
	case refused(err):
		p = problem.Unavailable()
	default:
		p = problem.New(http.StatusBadGateway, "bad-upstream", "the service gave no answer that could be read")
	}
	problem.Write(w, r, p.Because(err))
}

func timeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// refused says that no connection was made, so nothing was done.
func refused(err error) bool {
	var op *net.OpError
	return errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &op) && op.Op == "dial"
}

// retrying asks again, once, where a GET found no answer: the service may just be starting again. Nothing else is repeated: the
// service may have done what was asked, and only the client knows its idempotency key.
type retrying struct{ base http.RoundTripper }

func (t retrying) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(r)
	if err == nil || r.Method != http.MethodGet || r.Body != nil && r.Body != http.NoBody || timeout(err) || r.Context().Err() != nil {
		return resp, err
	}
	select {
	case <-time.After(retryPause):
		return t.base.RoundTrip(r)
	case <-r.Context().Done():
		return nil, err
	}
}
