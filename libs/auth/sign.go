package auth

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
	"github.com/lestrrat-go/jwx/v3/jwk"
)

const (
	serviceLife = time.Minute
	// A cached token is renewed while it still lives long enough for a slow call.
	renewBefore = 20 * time.Second
)

// Signer signs the calls of one service.
type Signer struct {
	name string
	key  jwk.Key

	mu     sync.Mutex
	tokens map[string]serviceToken // by audience: a handful
}

type serviceToken struct {
	text    string
	renewAt time.Time
}

// NewSigner reads the service's private key.
func NewSigner(name, keyFile string) (*Signer, error) {
	key, err := readKey(keyFile)
	if err != nil {
		return nil, err
	}
	kid, _ := key.KeyID()
	if owner, _, _ := strings.Cut(kid, "."); owner != name {
		return nil, fmt.Errorf("key %s in %s does not belong to %s", kid, keyFile, name)
	}
	return &Signer{name: name, key: key, tokens: map[string]serviceToken{}}, nil
}

// Token is a token for calls to the service aud, made anew every 40 s.
func (s *Signer) Token(aud string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if t := s.tokens[aud]; now.Before(t.renewAt) {
		return t.text, nil
	}
	text, err := sign(s.key, typService, Claims{
		Issuer: s.name, Subject: s.name, Audience: aud,
		IssuedAt: now.Unix(), Expires: now.Add(serviceLife).Unix(), ID: uuid.NewString(),
	})
	if err != nil {
		return "", err
	}
	s.tokens[aud] = serviceToken{text, now.Add(serviceLife - renewBefore)}
	return text, nil
}

// Transport signs requests for the service aud, except those that carry a user's token on purpose.
func (s *Signer) Transport(aud string, base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	return signing{s, aud, base}
}

type signing struct {
	signer *Signer
	aud    string
	base   http.RoundTripper
}

func (s signing) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("Authorization") == "" {
		token, err := s.signer.Token(s.aud)
		if err != nil {
			return nil, err
		}
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return s.base.RoundTrip(r)
}

// GenerateServiceKeys makes what is missing: <dir>/<name>.jwk, private, for each service, and <dir>/services.jwks with
// the public keys of all. Keys that are there are kept, so that a second start changes nothing.
func GenerateServiceKeys(dir string, names []string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make key directory: %w", err)
	}
	keys := make([]jwk.Key, 0, len(names))
	for _, name := range names {
		file := filepath.Join(dir, name+".jwk")
		key, err := readKey(file)
		if errors.Is(err, fs.ErrNotExist) {
			key, err = createKey(name, file)
		}
		if err != nil {
			return err
		}
		keys = append(keys, key)
	}
	doc, err := PublicKeys(keys...)
	if err != nil {
		return err
	}
	return replace(filepath.Join(dir, "services.jwks"), doc, 0o644)
}

func createKey(name, file string) (jwk.Key, error) {
	key, err := NewKey(name + "." + uuid.NewString()[:8])
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(key)
	if err != nil {
		return nil, fmt.Errorf("encode key of %s: %w", name, err)
	}
	return key, replace(file, text, 0o600)
}

// replace writes a file so that a reader sees the old one or the new one.
func replace(file string, text []byte, mode fs.FileMode) error {
	if err := os.WriteFile(file+".new", text, mode); err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	return nil
}

func readKey(file string) (jwk.Key, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read service key: %w", err)
	}
	key, err := jwk.ParseKey(text)
	if err != nil {
		return nil, fmt.Errorf("parse service key %s: %w", file, err)
	}
	if private, err := jwk.IsPrivateKey(key); err != nil || !private {
		return nil, fmt.Errorf("service key %s is not a private key", file)
	}
	return key, nil
}
