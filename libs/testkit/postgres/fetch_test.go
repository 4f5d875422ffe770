package postgres

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

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
