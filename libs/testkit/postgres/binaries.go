package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// MinMajor is the oldest release whose SQL the services may use.
const MinMajor = 15

// BinEnv names the environment variable that overrides the search for binaries.
const BinEnv = "WAYBILL_POSTGRES_BIN"

// Binaries is a directory that holds postgres and initdb of one release.
type Binaries struct {
	Dir   string
	Major int
}

func (b Binaries) path(name string) string { return filepath.Join(b.Dir, name) }

// places are where distributions put the binaries without putting them on PATH.
var places = []string{
	"/usr/lib/postgresql/*/bin",          // Debian, Ubuntu
	"/usr/pgsql-*/bin",                   // PGDG on Fedora and its family
	"/usr/lib/postgresql*/bin",           // SUSE
	"/usr/libexec/postgresql*",           // Alpine
	"/usr/local/pgsql/bin",               // from source
	"/opt/homebrew/opt/postgresql@*/bin", // Homebrew, Apple silicon
	"/usr/local/opt/postgresql@*/bin",    // Homebrew, Intel
	"/Applications/Postgres.app/Contents/Versions/*/bin",
}

// ErrNoBinaries says that this machine has no usable PostgreSQL of its own.
var ErrNoBinaries = errors.New("no PostgreSQL " + strconv.Itoa(MinMajor) + " or later on this machine")

// Find looks for binaries in $WAYBILL_POSTGRES_BIN, on PATH and where distributions
// put them. With major other than 0 it accepts only that release (data on disk can be
// opened by no other); otherwise the first on PATH wins, then the newest. The error
// is ErrNoBinaries with the list of what was looked at and why it would not do.
func Find(ctx context.Context, major int) (Binaries, error) {
	if dir := os.Getenv(BinEnv); dir != "" {
		b, err := inspect(ctx, dir)
		if err == nil && major != 0 && b.Major != major {
			err = fmt.Errorf("%s has PostgreSQL %d, the data on disk needs %d", dir, b.Major, major)
		}
		if err != nil {
			return Binaries{}, fmt.Errorf("$%s: %w", BinEnv, err)
		}
		return b, nil
	}
	var refused []error
	for _, dir := range candidates() {
		b, err := inspect(ctx, dir)
		switch {
		case err != nil:
			refused = append(refused, err)
		case major != 0 && b.Major != major:
			refused = append(refused, fmt.Errorf("%s has PostgreSQL %d, the data on disk needs %d", dir, b.Major, major))
		default:
			return b, nil
		}
	}
	return Binaries{}, fmt.Errorf("%w: %w", ErrNoBinaries, errors.Join(append(refused, errors.New("nothing else on PATH or in the distributions' places"))...))
}

func candidates() []string {
	var dirs []string
	if p, err := exec.LookPath("initdb"); err == nil {
		// PATH often holds links into a release's directory, and postgres finds its
		// own libraries from where it really is.
		if p, err = filepath.EvalSymlinks(p); err == nil {
			dirs = append(dirs, filepath.Dir(p))
		}
	}
	var installed []string
	for _, pattern := range places {
		found, _ := filepath.Glob(pattern)
		installed = append(installed, found...)
	}
	slices.SortStableFunc(installed, func(a, b string) int { return releaseOf(b) - releaseOf(a) })
	for _, dir := range append(installed, fetchedDir()) {
		if _, err := os.Stat(dir); err == nil && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

var digits = regexp.MustCompile(`\d+`)

// releaseOf guesses the release from a path, to try the newest first.
func releaseOf(dir string) int {
	n, _ := strconv.Atoi(digits.FindString(dir))
	return n
}

var versionLine = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// inspect asks the binaries themselves: a name on PATH may be a wrapper script, a
// leftover of a removed package, or built for another machine.
func inspect(ctx context.Context, dir string) (Binaries, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	b := Binaries{Dir: dir}
	for _, name := range []string{"postgres", "initdb"} {
		out, err := exec.CommandContext(ctx, b.path(name), "--version").Output()
		if err != nil {
			return b, fmt.Errorf("%s does not run: %w", b.path(name), err)
		}
		m := versionLine.FindSubmatch(out)
		if m == nil {
			return b, fmt.Errorf("%s --version says %q", b.path(name), out)
		}
		major, _ := strconv.Atoi(string(m[1]))
		if major < MinMajor {
			return b, fmt.Errorf("%s is PostgreSQL %d, older than %d", b.path(name), major, MinMajor)
		}
		if b.Major != 0 && b.Major != major {
			return b, fmt.Errorf("%s mixes PostgreSQL %d and %d", dir, b.Major, major)
		}
		b.Major = major
	}
	u, err := serverUser()
	if err != nil {
		return b, err
	}
	if err := u.reaches(b.path("postgres")); err != nil {
		return b, err
	}
	return b, nil
}
