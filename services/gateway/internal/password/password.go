// Package password hashes and checks passwords with argon2id (RFC 9106).
package password

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/crypto/argon2"
)

// The parameters are OWASP's first choice for argon2id: 19 MiB, 2 passes, 1 lane.
const (
	memoryKiB = 19 << 10
	passes    = 2
	lanes     = 1
	saltSize  = 16
	hashSize  = 32
	// MaxLength bounds what is hashed; nobody types more.
	MaxLength = 128
)

// slots bounds the checks at once, one per core and at most four: each keeps a core busy and 19 MiB of memory, so more would
// only take memory from everybody else.
var slots = make(chan struct{}, min(runtime.GOMAXPROCS(0), 4))

// Slot waits until a hash may be made, as long as ctx lasts. Who has a slot gives it back with release.
func Slot(ctx context.Context) (release func(), err error) {
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// dummy is checked where there is no such user, so that both answers take the same time.
var dummy = Hash("no password has this hash")

// Hash makes a hash in PHC form, with a salt of its own.
func Hash(password string) string {
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails
	sum := argon2.IDKey([]byte(password), salt, passes, memoryKiB, lanes, hashSize)
	enc := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, memoryKiB, passes, lanes,
		enc.EncodeToString(salt), enc.EncodeToString(sum))
}

// Check compares in constant time. An empty hash, for a user who does not exist, takes as long and is never right. An error means that
// the stored hash cannot be read. Requests come with a Slot.
func Check(hash, password string) (bool, error) {
	exists := hash != ""
	if !exists {
		hash = dummy
	}
	var version, memory, time, threads int
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, fmt.Errorf("stored hash is no argon2id")
	}
	if _, err := fmt.Sscanf(parts[2]+" "+parts[3], "v=%d m=%d,t=%d,p=%d", &version, &memory, &time, &threads); err != nil {
		return false, fmt.Errorf("read parameters of stored hash: %w", err)
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	if err != nil {
		return false, fmt.Errorf("read salt of stored hash: %w", err)
	}
	want, err := base64.RawStdEncoding.DecodeString(parts[5])
	if err != nil || len(want) != hashSize {
		return false, fmt.Errorf("stored hash has a wrong size")
	}
	got := argon2.IDKey([]byte(password), salt, uint32(time), uint32(memory), uint8(threads), hashSize)
	return subtle.ConstantTimeCompare(got, want) == 1 && exists, nil
}
