package password

import (
	"context"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	hash := Hash("password")
	if again := Hash("password"); again == hash {
		t.Error("two hashes have one salt")
	}
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("parameters: %s", hash)
	}
	for _, c := range []struct {
		hash, password string
		ok, fails      bool
	}{
		{hash, "password", true, false},
		{hash, "Password", false, false},
		{hash, "", false, false},
		{"", "no password has this hash", false, false}, // the dummy's own
		{"$2a$10$x", "password", false, true},
		{"$argon2id$v=19$m=x$a$b", "password", false, true},
		{hash[:len(hash)-5], "password", false, true},
	} {
		ok, err := Check(c.hash, c.password)
		if ok != c.ok || (err != nil) != c.fails {
			t.Errorf("%.20q %q: %v %v", c.hash, c.password, ok, err)
		}
	}
}

func TestSlotsAreBounded(t *testing.T) {
	var releases []func()
	for range cap(slots) {
		release, err := Slot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		releases = append(releases, release)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Slot(ctx); err == nil {
		t.Error("one slot more than there are")
	}
	for _, release := range releases {
		release()
	}
	if release, err := Slot(t.Context()); err != nil {
		t.Error(err)
	} else {
		release()
	}
}
