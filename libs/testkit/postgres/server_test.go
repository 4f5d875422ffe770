package postgres_test

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/libs/testkit/postgres"
)

func TestMain(m *testing.M) {
	// The process that TestServerDoesNotOutliveItsStarter kills.
	if dir := os.Getenv("WAYBILL_TEST_START_IN"); dir != "" {
		startAndHang(dir)
	}
	goleak.VerifyTestMain(m)
}

func start(t *testing.T, o postgres.Options) *postgres.Server {
	t.Helper()
	s, err := postgres.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

func query(t *testing.T, url, sql string) string {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	var v string
	if err := c.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// open is a temporary directory that the server's user can reach when root runs this.
func open(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// keep writes what a later server on the same data must find.
func keep(t *testing.T, s *postgres.Server) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	if _, err := c.Exec(t.Context(), "CREATE TABLE t AS SELECT 'kept' AS v"); err != nil {
		t.Fatal(err)
	}
}

func TestServer(t *testing.T) {
	dir := filepath.Join(open(t), "a", "b")
	s := start(t, postgres.Options{Dir: dir})
	keep(t, s)
	if got := query(t, s.URL("postgres"), "SHOW max_connections"); got != "200" {
		t.Errorf("max_connections = %s", got)
	}

	t.Run("a second start on the port says what to do", func(t *testing.T) {
		_, err := postgres.Start(t.Context(), postgres.Options{Dir: filepath.Join(open(t), "x"), Port: s.Port})
		if !errors.Is(err, postgres.ErrPortTaken) || !strings.Contains(err.Error(), strconv.Itoa(s.Port)) {
			t.Errorf("err = %v", err)
		}
	})
	t.Run("a second server on the data is refused", func(t *testing.T) {
		_, err := postgres.Start(t.Context(), postgres.Options{Dir: dir})
		if err == nil || !strings.Contains(err.Error(), "postmaster.pid") {
			t.Errorf("err = %v", err)
		}
	})

	s.Stop()
	s.Stop()
	again := start(t, postgres.Options{Dir: dir, Fsync: true})
	if got := query(t, again.URL("postgres"), "SELECT v FROM t"); got != "kept" {
		t.Errorf("after a restart the row is %q", got)
	}
	if got := query(t, again.URL("postgres"), "SHOW fsync"); got != "on" {
		t.Errorf("fsync = %s", got)
	}
}

// A server that was killed leaves its pid file and an unclean log behind.
func TestServerRecoversFromKill(t *testing.T) {
	dir := filepath.Join(open(t), "pg")
	s := start(t, postgres.Options{Dir: dir})
	keep(t, s)
	if err := syscall.Kill(s.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.Wait()
	s.Stop()
	again := start(t, postgres.Options{Dir: dir})
	if got := query(t, again.URL("postgres"), "SELECT v FROM t"); got != "kept" {
		t.Errorf("after kill -9 the row is %q", got)
	}
}

func TestTemporaryDirectoryIsRemoved(t *testing.T) {
	dir := filepath.Join(open(t), "pg")
	s := start(t, postgres.Options{Dir: dir, Temporary: true})
	s.Stop()
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}

func TestServerDoesNotOutliveItsStarter(t *testing.T) {
	dir := filepath.Join(open(t), "pg")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "WAYBILL_TEST_START_IN="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, err := out.Read(buf)
	if err != nil {
		t.Fatalf("the starter did not say its port: %v", err)
	}
	addr := "127.0.0.1:" + strings.TrimSpace(string(buf[:n]))
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	until(t, func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		_, gone := os.Stat(dir)
		return err != nil && errors.Is(gone, os.ErrNotExist)
	})
}

func startAndHang(dir string) {
	s, err := postgres.Start(context.Background(), postgres.Options{Dir: dir, Temporary: true})
	if err != nil {
		os.Exit(1)
	}
	_, _ = os.Stdout.WriteString(strconv.Itoa(s.Port) + "\n")
	select {}
}

func until(t *testing.T, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen within 20 s")
		}
		<-tick.C
	}
}

func TestFindSaysWhatItLookedAt(t *testing.T) {
	dir := t.TempDir()
	old := "#!/bin/sh\necho 'postgres (PostgreSQL) 9.6.1'\n"
	for _, name := range []string{"postgres", "initdb"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(old), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(postgres.BinEnv, dir)
	_, err := postgres.Find(t.Context(), 0)
	if err == nil || !strings.Contains(err.Error(), "PostgreSQL 9, older than 15") {
		t.Errorf("err = %v", err)
	}
	t.Setenv(postgres.BinEnv, "")
	b, err := postgres.Find(t.Context(), 0)
	if err != nil {
		t.Skipf("no PostgreSQL on this machine: %v", err)
	}
	if _, err := postgres.Find(t.Context(), b.Major+100); !errors.Is(err, postgres.ErrNoBinaries) {
		t.Errorf("err = %v", err)
	}
}
