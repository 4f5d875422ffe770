package postgres

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// archive is a .txz with bin/postgres and bin/initdb, scripts that print a version, and
// a link between two libraries.
const archive = `/Td6WFoAAATm1rRGAgAhARYAAAB0L+Wj4Cf/AOddABcLyMeB/hJXAysOeq5gxQjWtPfzgikuAJd5OpYAq+E2cSOMv8o1U76z9U1G
T2GDzNf8iJlrja/2iAAkHhQ/hZSe3/cUzrUMF2UBz0VgsXQLZfElxw6maHLCg56RGZbywBShinp9beFHv/CwEKIeAv9UAzDjs57H
NJCyaYn5fQKgpbQ7F3nVN15f0iUMHB1kiVB3lhk3yJGX5LHAIsGdHxcXGc7gUsvZnbGPip1mJuU0189P3Edbzy/Ek39L8DcRsv8h
9dbt5x0F2ePecIC3hN8z8pDJzMvXSWjEVX4d6I8pVfYZSAjnAAAA7PdbwiJ3GREAAYMCgFAAAEB5VKCxxGf7AgAAAAAEWVo=`

// bare makes this machine one without PostgreSQL, with a mirror that serves the archive
// under a checksum.
func bare(t *testing.T, checksum func([]byte) string) {
	t.Helper()
	txz, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(archive, "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	var jar bytes.Buffer
	z := zip.NewWriter(&jar)
	w, err := z.Create("postgres-linux-x86_64.txz")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(txz)
	z.Close()
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !strings.Contains(r.URL.Path, "/io/zonky/test/postgres/embedded-postgres-binaries-"+platform()+"/"+fetchedVersion+"/"):
			http.NotFound(w, r)
		case strings.HasSuffix(r.URL.Path, ".sha256"):
			_, _ = w.Write([]byte(checksum(jar.Bytes())))
		default:
			_, _ = w.Write(jar.Bytes())
		}
	}))
	t.Cleanup(mirror.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	oldPlaces, oldState := places, rootState
	t.Cleanup(func() { places, rootState = oldPlaces, oldState })
	dir, err := os.MkdirTemp("", "waybill-fetch-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // the server's user must get in
		t.Fatal(err)
	}
	places, rootState = nil, dir
	t.Setenv("PATH", "")
	t.Setenv("XDG_CACHE_HOME", dir)
	t.Setenv("HOME", dir)
	t.Setenv(MavenEnv, mirror.URL)
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func TestFetch(t *testing.T) {
	bare(t, sum)
	b, err := fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if b.Major != 17 || b.Dir != fetchedDir() {
		t.Errorf("got %+v", b)
	}
	if again, err := Find(t.Context(), 0); err != nil || again != b {
		t.Errorf("the next start finds %+v, %v", again, err)
	}
	if link, err := os.Readlink(filepath.Join(filepath.Dir(b.Dir), "lib", "libpq.so.5")); err != nil || link != "libpq.so.5.17" {
		t.Errorf("%q, %v", link, err)
	}
}

func TestFetchRefusesWhatWasTamperedWith(t *testing.T) {
	bare(t, func([]byte) string { return sum(nil) })
	if _, err := fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("err = %v", err)
	}
	if _, err := os.Stat(fetchedDir()); err == nil {
		t.Error("it was unpacked all the same")
	}
}

func TestNoPostgreSQLSaysWhatToDo(t *testing.T) {
	bare(t, sum)
	t.Setenv(MavenEnv, "http://127.0.0.1:1")
	_, err := Start(t.Context(), Options{Dir: filepath.Join(t.TempDir(), "pg")})
	for _, want := range []string{"no PostgreSQL 15 or later", "apt install postgresql", BinEnv} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
}

func TestUntarStaysInside(t *testing.T) {
	archive := func(entries ...tar.Header) *tar.Reader {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range entries {
			h.Mode = 0o755
			if h.Typeflag == tar.TypeReg {
				h.Size = 2
			}
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if h.Typeflag == tar.TypeReg {
				_, _ = w.Write([]byte("hi"))
			}
		}
		w.Close()
		return tar.NewReader(&b)
	}
	dir := t.TempDir()
	good := archive(
		tar.Header{Name: "./bin/", Typeflag: tar.TypeDir},
		tar.Header{Name: "./bin/postgres", Typeflag: tar.TypeReg},
		tar.Header{Name: "./lib/a.so", Typeflag: tar.TypeSymlink, Linkname: "a.so.1"},
	)
	if err := untar(good, dir); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "bin", "postgres")); err != nil || string(b) != "hi" {
		t.Errorf("%q, %v", b, err)
	}
	for _, bad := range []*tar.Reader{
		archive(tar.Header{Name: "../out", Typeflag: tar.TypeReg}),
		archive(tar.Header{Name: "up", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, tar.Header{Name: "up/out", Typeflag: tar.TypeReg}),
	} {
		if err := untar(bad, t.TempDir()); err == nil {
			t.Error("an entry left the directory")
		}
	}
}
