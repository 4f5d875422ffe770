package auth

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
)

const (
	// refreshEvery bounds how long a removed key is still accepted: 60 s with the time of a fetch.
	refreshEvery = 45 * time.Second
	// unknownEvery is how often an unknown key id may cause a fetch: anyone can invent key ids.
	unknownEvery = time.Minute
	// emptyEvery is the same while there is no key at all: the issuer has not started yet, and whoever comes in the moment after
	// it did is turned away for so long.
	emptyEvery   = 100 * time.Millisecond
	fetchTimeout = 3 * time.Second
	maxJWKS      = 256 << 10
)

// keyring holds the last good keys of one issuer by key id.
type keyring struct {
	source  func(context.Context) ([]byte, error)
	removed func() // called after a key has gone, to forget tokens verified with it
	now     func() time.Time

	fetching sync.Mutex // one fetch at a time; guards tried
	tried    time.Time

	mu   sync.RWMutex
	keys map[string]jwk.Key
}

func (k *keyring) get(kid string) (jwk.Key, int) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.keys[kid], len(k.keys)
}

// find is the key of that id; an unknown id may cause a fetch, and those who ask meanwhile share it. None of the keys found means
// ErrNoKeys: then it is not the token that is wrong.
func (k *keyring) find(ctx context.Context, kid string) (jwk.Key, error) {
	if key, _ := k.get(kid); key != nil {
		return key, nil
	}
	k.fetching.Lock()
	defer k.fetching.Unlock()
	key, n := k.get(kid)
	if key != nil {
		return key, nil
	}
	wait := unknownEvery
	if n == 0 {
		wait = emptyEvery
	}
	if k.now().Sub(k.tried) < wait {
		return nil, missing(n)
	}
	if err := k.fetch(ctx); err != nil {
		return nil, missing(n)
	}
	if key, n = k.get(kid); key == nil {
		return nil, missing(n)
	}
	return key, nil
}

func missing(known int) error {
	if known == 0 {
		return ErrNoKeys
	}
	return fmt.Errorf("%w: unknown key", errToken)
}

func (k *keyring) refresh(ctx context.Context) error {
	k.fetching.Lock()
	defer k.fetching.Unlock()
	return k.fetch(ctx)
}

// fetch replaces the keys, if what the source gives is a key set with at least one good key. It runs under k.fetching, and not
// under the context of the request that happened to cause it.
func (k *keyring) fetch(ctx context.Context) error {
	k.tried = k.now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	defer cancel()
	doc, err := k.source(ctx)
	if err != nil {
		return fmt.Errorf("fetch keys: %w", err)
	}
	keys, err := parseKeys(doc)
	if err != nil {
		return err
	}
	k.mu.Lock()
	old := k.keys
	k.keys = keys
	k.mu.Unlock()
	for kid, was := range old {
		if is := keys[kid]; is == nil || !jwk.Equal(was, is) {
			k.removed()
			break
		}
	}
	return nil
}

// parseKeys takes the usable keys of a JWKS document: public, Ed25519, for signatures, with a sound id. Others may be there
// for other readers; a private key may not.
func parseKeys(doc []byte) (map[string]jwk.Key, error) {
	set, err := jwk.Parse(doc)
	if err != nil {
		return nil, fmt.Errorf("parse key set: %w", err)
	}
	keys := map[string]jwk.Key{}
	for i := range set.Len() {
		key, _ := set.Key(i)
		if private, err := jwk.IsPrivateKey(key); err != nil || private {
			return nil, fmt.Errorf("key set has a private key")
		}
		okp, ok := key.(jwk.OKPPublicKey)
		if !ok {
			continue
		}
		if crv, _ := okp.Crv(); crv != jwa.Ed25519() {
			continue
		}
		if alg, ok := key.Algorithm(); ok && alg.String() != "EdDSA" && alg.String() != "Ed25519" {
			continue
		}
		if use, ok := key.KeyUsage(); ok && use != "sig" {
			continue
		}
		if kid, _ := key.KeyID(); validKid(kid) {
			keys[kid] = key
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("key set has no Ed25519 key")
	}
	return keys, nil
}

// fromURL fetches a JWKS document. It follows no redirect: the address is configured, not negotiated.
func fromURL(url string) func(context.Context) ([]byte, error) {
	client := &http.Client{
		Transport:     &http.Transport{MaxConnsPerHost: 1, IdleConnTimeout: 5 * time.Second},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context) ([]byte, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, err
		}
		resp, err := client.Do(r)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("issuer answers %d", resp.StatusCode)
		}
		return io.ReadAll(io.LimitReader(resp.Body, maxJWKS))
	}
}
