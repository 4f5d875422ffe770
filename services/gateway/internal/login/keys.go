package login

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/auth"
)

const (
	// keyLife is how long a key signs.
	keyLife = 30 * 24 * time.Hour
	// keyLead is how long a key is published before it signs: verifiers fetch every 45 s, and one that was cut off for minutes still knows it.
	keyLead = 15 * time.Minute
	// keyKeep is how long a superseded key is published: the life of an access token, with room.
	keyKeep = time.Hour
	// keyReload is how often replicas look for each other's keys.
	keyReload = time.Minute
)

// StoredKey is a signing key as it is stored.
type StoredKey struct {
	ID      string
	Private string // JWK
	Active  bool
}

// KeyStore keeps signing keys.
type KeyStore interface {
	Keys(ctx context.Context, create func() (kid, private string, err error), life, lead, keep time.Duration) ([]StoredKey, error)
}

// Keys are the signing keys: those that are published, and the one that signs.
type Keys struct {
	store KeyStore
	log   *zap.Logger

	mu        sync.RWMutex
	signing   jwk.Key
	published []byte
}

// OpenKeys loads the keys, and makes the first one.
func OpenKeys(ctx context.Context, store KeyStore, log *zap.Logger) (*Keys, error) {
	k := &Keys{store: store, log: log}
	return k, k.reload(ctx)
}

// Run rotates keys and takes over those of other replicas.
func (k *Keys) Run(ctx context.Context) error {
	tick := time.NewTicker(keyReload)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := k.reload(ctx); err != nil && ctx.Err() == nil {
				k.log.Warn("reload signing keys", zap.Error(err)) // those that are loaded go on signing
			}
		}
	}
}

func (k *Keys) reload(ctx context.Context) error {
	stored, err := k.store.Keys(ctx, createKey, keyLife, keyLead, keyKeep)
	if err != nil {
		return err
	}
	var signing jwk.Key
	all := make([]jwk.Key, 0, len(stored))
	for _, s := range stored {
		key, err := jwk.ParseKey([]byte(s.Private))
		if err != nil {
			return fmt.Errorf("parse signing key %s: %w", s.ID, err)
		}
		all = append(all, key)
		if s.Active {
			signing = key // newest last
		}
	}
	if signing == nil {
		return fmt.Errorf("none of %d signing keys is active", len(stored))
	}
	published, err := auth.PublicKeys(all...)
	if err != nil {
		return err
	}
	k.mu.Lock()
	k.signing, k.published = signing, published
	k.mu.Unlock()
	return nil
}

func createKey() (kid, private string, err error) {
	kid = uuid.NewString()[:8]
	key, err := auth.NewKey(kid)
	if err != nil {
		return "", "", err
	}
	text, err := json.Marshal(key)
	if err != nil {
		return "", "", fmt.Errorf("encode signing key: %w", err)
	}
	return kid, string(text), nil
}

// JWKS is the published document.
func (k *Keys) JWKS(context.Context) ([]byte, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.published, nil
}

// sign makes an access token.
func (k *Keys) sign(u User, now time.Time) (string, error) {
	k.mu.RLock()
	key := k.signing
	k.mu.RUnlock()
	return auth.SignUser(key, auth.Claims{
		Subject: u.Name, Tenant: u.Tenant, Roles: u.Roles, ID: uuid.NewString(),
		IssuedAt: now.Unix(), Expires: now.Add(accessLife).Unix(),
	})
}
