package postgres

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/xi2/xz"
)

// The portable builds are those that fergusstrange/embedded-postgres uses: small
// archives on Maven Central, made from the sources by zonky.io. That library is not
// used itself because it runs initdb and the server as whoever it is, which
// PostgreSQL refuses to root.
const (
	fetchedMajor   = 17
	fetchedVersion = "17.5.0"
)

// MavenEnv names the environment variable that points at a mirror of Maven Central.
const MavenEnv = "WAYBILL_MAVEN_MIRROR"

const mavenCentral = "https://repo1.maven.org/maven2"

// fetchWithin bounds the download of about 10 MB: 30 kB/s is slow enough to give up.
const fetchWithin = 5 * time.Minute

// archiveLimit guards memory against a mirror that answers with something else; the
// archives are 8–16 MB, unpacked 25–60.
const archiveLimit = 128 << 20

func fetchedDir() string {
	base := rootState
	if os.Geteuid() != 0 {
		cache, err := os.UserCacheDir()
		if err != nil {
			cache = os.TempDir()
		}
		base = filepath.Join(cache, "waybill")
	}
	return filepath.Join(base, "postgresql-"+fetchedVersion, "bin")
}

// platform names a build as zonky.io does.
func platform() string {
	arch := runtime.GOARCH
	if arch == "arm64" {
		arch = "arm64v8"
	}
	if _, err := os.Stat("/etc/alpine-release"); err == nil && runtime.GOOS == "linux" {
		arch += "-alpine"
	}
	return runtime.GOOS + "-" + arch
}

// fetch downloads, checks and unpacks the portable build. It appears under its final
// name in one rename, so that neither an interruption nor a neighbour doing the same
// leaves half of it.
func fetch(ctx context.Context) (Binaries, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchWithin)
	defer cancel()
	mirror := os.Getenv(MavenEnv)
	if mirror == "" {
		mirror = mavenCentral
	}
	name := "embedded-postgres-binaries-" + platform()
	url := fmt.Sprintf("%s/io/zonky/test/postgres/%s/%s/%s-%s.jar", strings.TrimSuffix(mirror, "/"), name, fetchedVersion, name, fetchedVersion)
	jar, err := get(ctx, url)
	if err != nil {
		return Binaries{}, err
	}
	if err := check(ctx, url, jar); err != nil {
		return Binaries{}, err
	}
	dir := filepath.Dir(fetchedDir())
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return Binaries{}, err
	}
	part, err := os.MkdirTemp(filepath.Dir(dir), "unpacking-")
	if err != nil {
		return Binaries{}, err
	}
	defer os.RemoveAll(part)
	// The server's user must get in.
	if err := os.Chmod(part, 0o755); err != nil {
		return Binaries{}, err
	}
	if err := unpack(jar, part); err != nil {
		return Binaries{}, fmt.Errorf("unpack %s: %w", url, err)
	}
	if err := os.Rename(part, dir); err != nil {
		// The neighbour was faster: what it unpacked is the same.
		if _, serr := os.Stat(fetchedDir()); serr != nil {
			return Binaries{}, err
		}
	}
	return inspect(ctx, fetchedDir())
}

// check compares with the repository's own checksum. Mirrors that carry no SHA-256 have
// the SHA-1 that Maven has always asked for: it tells damage, if not malice, and what
// comes over TLS from the repository itself needs no more.
func check(ctx context.Context, url string, jar []byte) error {
	strong, weak := sha256.Sum256(jar), sha1.Sum(jar)
	got := hex.EncodeToString(strong[:])
	want, err := get(ctx, url+".sha256")
	if err != nil {
		got = hex.EncodeToString(weak[:])
		if want, err = get(ctx, url+".sha1"); err != nil {
			return err
		}
	}
	if got != strings.TrimSpace(string(want)) {
		return fmt.Errorf("%s does not match its checksum", url)
	}
	return nil
}

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, archiveLimit))
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", url, err)
	}
	return b, nil
}

// unpack finds the one .txz in the jar and writes its files below dir.
func unpack(jar []byte, dir string) error {
	z, err := zip.NewReader(bytes.NewReader(jar), int64(len(jar)))
	if err != nil {
		return err
	}
	for _, f := range z.File {
		if !strings.HasSuffix(f.Name, ".txz") {
			continue
		}
		r, err := f.Open()
		if err != nil {
			return err
		}
		defer r.Close()
		x, err := xz.NewReader(r, 0)
		if err != nil {
			return err
		}
		return untar(tar.NewReader(x), dir)
	}
	return errors.New("no .txz inside")
}

func untar(t *tar.Reader, dir string) error {
	// Root keeps every path and link of the archive inside dir.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := filepath.Clean(h.Name)
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, 0o755)
		case tar.TypeSymlink:
			err = root.Symlink(h.Linkname, name)
		case tar.TypeReg:
			err = write(root, name, os.FileMode(h.Mode).Perm()|0o444, t)
		}
		if err != nil {
			return err
		}
	}
}

func write(root *os.Root, name string, mode os.FileMode, r io.Reader) error {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
