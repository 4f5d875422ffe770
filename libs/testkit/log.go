package testkit

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Log is a logger whose lines go to the test that caused them. Lines that come after
// its end, from a goroutine that is slow to stop, are dropped: t.Log would panic.
func Log(t testing.TB) *zap.Logger {
	t.Helper()
	w := &testWriter{t: t}
	t.Cleanup(func() {
		w.Lock()
		defer w.Unlock()
		w.t = nil
	})
	config := zap.NewDevelopmentEncoderConfig()
	config.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
	config.EncodeDuration = zapcore.StringDurationEncoder
	return zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(config), w, zap.DebugLevel))
}

type testWriter struct {
	sync.Mutex
	t testing.TB
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.Lock()
	defer w.Unlock()
	if w.t != nil {
		w.t.Logf("%s", bytes.TrimRight(p, "\n"))
	}
	return len(p), nil
}

func (w *testWriter) Sync() error { return nil }

// poll is how often Eventually looks: well below what a person or a time-out notices.
const poll = 5 * time.Millisecond

// Eventually waits until cond holds and fails the test when it does not within
// timeout. Be generous with it: a test that passes never waits it out.
func Eventually(t testing.TB, timeout time.Duration, cond func() bool, msg string) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", timeout, msg)
		}
		<-tick.C
	}
}
