package login

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"time"
)

const (
	// accessLife bounds how long a stolen access token is good; nothing revokes one.
	accessLife = 10 * time.Minute
	// refreshLife is how long a session may sleep, familyLife how long it may last however often it is refreshed.
	refreshLife = 24 * time.Hour
	familyLife  = 30 * 24 * time.Hour
	// grace is how long a client whose answer was lost may ask again and get the same successor.
	grace = 10 * time.Second
)

// Token is a refresh token: 256 random bits, opaque to clients.
type Token [32]byte

// NewToken makes one.
func NewToken() (t Token) {
	_, _ = rand.Read(t[:]) // never fails
	return t
}

// String is what the client keeps.
func (t Token) String() string { return base64.RawURLEncoding.EncodeToString(t[:]) }

// ParseToken reads the one form of a token that we have given out.
func ParseToken(s string) (t Token, ok bool) {
	if len(s) != base64.RawURLEncoding.EncodedLen(len(t)) {
		return t, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) != len(t) {
		return t, false
	}
	return Token(raw), true
}

// Seal hides a successor behind the token that was exchanged for it; sealing the result again opens it. The pad is a hash of 256 random
// bits that only the client has, and a token has one successor, so the pad is used once.
func Seal(used, successor Token) (sealed Token) {
	pad := sha256.Sum256(append([]byte("waybill refresh successor"), used[:]...))
	for i := range sealed {
		sealed[i] = successor[i] ^ pad[i]
	}
	return sealed
}

// Outcome is what becomes of a refresh token that is presented.
type Outcome string

// The outcomes.
const (
	Rotated  Outcome = "rotated"  // used now, a successor made
	Repeated Outcome = "repeated" // used a moment ago: the same successor again
	Reused   Outcome = "reused"   // used before: somebody else has it, so the whole family ends
	Expired  Outcome = "expired"
	Revoked  Outcome = "revoked"
	Unknown  Outcome = "unknown"
)

// State is what is known about a token under its family's lock.
type State struct {
	Revoked, Expired, Used bool
	InGrace                bool // it was used at most grace ago
	SuccessorUsed          bool // so whoever repeats it is not the one who lost an answer
}

// Decide is the whole rule (RFC 9700, 4.14.2). A revoked family stays revoked whatever is presented.
func (s State) Decide() Outcome {
	switch {
	case s.Revoked:
		return Revoked
	case s.Used && s.InGrace && !s.SuccessorUsed && !s.Expired:
		return Repeated
	case s.Used:
		return Reused
	case s.Expired:
		return Expired
	}
	return Rotated
}

// Exchange is the result of presenting a token.
type Exchange struct {
	Outcome Outcome
	User    User
	Next    Token // with Rotated and Repeated
}
