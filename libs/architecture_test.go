package libs_test

import (
	"bufio"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode"
)

// The rules of the workspace (docs/architecture.md) that a machine can check. They fail loudly here, so that nobody has
// to remember them in a review.

const module = "github.com/waybill-dev/waybill/"

// edges are the imports that are allowed inside libs. What is not drawn here does not exist.
var edges = map[string][]string{
	"event":     nil,
	"problem":   nil,
	"telemetry": {"problem"}, // a panic in a handler is answered by the one place that answers
	"pg":        {"problem"}, // a database that is away is 503 everywhere
	"stream":    {"event"},
	"failpoint": nil, // empty without its build tag: docs/adr/0009
	"outbox":    {"event", "stream", "pg", "failpoint"},
	"inbox":     {"event", "stream", "pg", "auth", "problem", "failpoint"}, // serves the interventions that it keeps
	"auth":      {"problem"},
	"service":   {"telemetry", "problem"},
}

// domainNouns belong to services. libs would be about orders the day it knew what an order is.
var domainNouns = []string{"order", "orders", "payment", "payments", "stock", "shipment", "shipments", "shipping", "product", "products", "carrier", "refund", "refunds", "cart", "catalogue"}

// forbidden names say nothing about what is inside.
var forbidden = []string{"common", "util", "utils", "helper", "helpers", "shared", "base", "core", "types", "models", "model", "domain", "usecase", "usecases", "infra", "adapter", "adapters", "ports", "impl", "manager", "misc", "pkg"}

// domainPackages hold rules and no I/O.
var domainPackages = []string{
	"services/order/internal/order", "services/payment/internal/payment", "services/inventory/internal/stock",
	"services/shipping/internal/shipment", "services/notification/internal/notice",
}

const (
	libsPackages = 10
	libsLines    = 6500 // of code: no tests, blank lines or comments; docs/adr/0008
	mainLines    = 120
)

type source struct {
	path    string // relative to the root of the repository, slashes
	dir     string
	test    bool
	lines   int
	code    int // lines that are neither blank nor comment, of what a service is built from
	file    *ast.File
	imports []string
}

func sources(t *testing.T) []source {
	t.Helper()
	all, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// parsed is the whole workspace, read once for all rules: with the race detector that takes seconds.
var parsed = sync.OnceValues(func() ([]source, error) {
	var all []source
	err := filepath.WalkDir("..", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); n != ".." && (strings.HasPrefix(n, ".") || n == "node_modules" || n == "gen" || n == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		raw, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, raw, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel := filepath.ToSlash(strings.TrimPrefix(p, ".."+string(filepath.Separator)))
		s := source{path: rel, dir: path.Dir(rel), test: strings.HasSuffix(rel, "_test.go"), file: f}
		for sc := bufio.NewScanner(strings.NewReader(string(raw))); sc.Scan(); {
			s.lines++
			if line := strings.TrimSpace(sc.Text()); line != "" && !strings.HasPrefix(line, "//") {
				s.code++
			}
		}
		if strings.HasPrefix(string(raw), "//go:build failpoints\n") {
			s.code = 0 // in no build that anybody ships
		}
		for _, i := range f.Imports {
			s.imports = append(s.imports, strings.Trim(i.Path.Value, `"`))
		}
		all = append(all, s)
		return nil
	})
	return all, err
})

func TestLibsImportOnlyAlongTheirEdges(t *testing.T) {
	for _, s := range sources(t) {
		name, in := strings.CutPrefix(s.dir, "libs/")
		if !in || s.test || strings.HasPrefix(name, "testkit") {
			continue
		}
		allowed, known := edges[name]
		if !known {
			t.Errorf("%s: package %s is not among the packages of libs", s.path, name)
		}
		for _, i := range s.imports {
			own, ok := strings.CutPrefix(i, module)
			if !ok {
				continue
			}
			to, ok := strings.CutPrefix(own, "libs/")
			if !ok || !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s; %s may import %v", s.path, own, name, allowed)
			}
		}
	}
}

func TestLibsStaySmall(t *testing.T) {
	packages, lines := map[string]int{}, 0
	for _, s := range sources(t) {
		if strings.HasPrefix(s.dir, "libs/") && !s.test && !strings.HasPrefix(s.dir, "libs/testkit") {
			packages[s.dir] += s.code
			lines += s.code
		}
	}
	if len(packages) > libsPackages || lines > libsLines {
		t.Errorf("libs has %d packages and %d lines of code: %v; the budget is %d and %d", len(packages), lines, packages, libsPackages, libsLines)
	}
}

func TestLibsKnowNoDomain(t *testing.T) {
	for _, s := range sources(t) {
		if !strings.HasPrefix(s.dir, "libs/") || s.test || strings.HasPrefix(s.dir, "libs/testkit") || s.path == "libs/event/catalog.go" {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "propagation" {
					return false // OpenTelemetry calls the headers that carry a trace a carrier
				}
			}
			id, ok := n.(*ast.Ident)
			if !ok {
				return true
			}
			for _, w := range words(id.Name) {
				if slices.Contains(domainNouns, w) {
					t.Errorf("%s: identifier %s says %q", s.path, id.Name, w)
				}
			}
			return true
		})
	}
}

// words splits an identifier where its case changes.
func words(name string) []string {
	var out []string
	start := 0
	for i, r := range name {
		if i > 0 && (unicode.IsUpper(r) || r == '_') {
			out = append(out, strings.ToLower(strings.Trim(name[start:i], "_")))
			start = i
		}
	}
	return append(out, strings.ToLower(strings.Trim(name[start:], "_")))
}

func TestPackagesAreNouns(t *testing.T) {
	for _, s := range sources(t) {
		if slices.Contains(forbidden, s.file.Name.Name) || slices.Contains(forbidden, path.Base(s.dir)) {
			t.Errorf("%s: package %s is a name that says nothing", s.path, s.file.Name.Name)
		}
	}
}

func TestServicesKeepToThemselves(t *testing.T) {
	for _, s := range sources(t) {
		parts := strings.Split(s.dir, "/")
		if len(parts) < 2 || (parts[0] != "services" && s.dir != "scripts/sandbox") {
			continue
		}
		home := parts[0] + "/" + parts[1]
		for _, i := range s.imports {
			own, ok := strings.CutPrefix(i, module)
			if !ok {
				continue
			}
			switch {
			case strings.HasPrefix(own, "libs/testkit"):
				if !s.test {
					t.Errorf("%s links test helpers into a service: %s", s.path, own)
				}
			case strings.HasPrefix(own, "libs/"), strings.HasPrefix(own, "proto/"), strings.HasPrefix(own, home+"/"):
			default:
				t.Errorf("%s imports %s: services talk over HTTP and Kafka only", s.path, own)
			}
		}
		if s.dir == home && path.Base(s.path) == "main.go" && s.lines > mainLines {
			t.Errorf("%s has %d lines; a main is a table of contents of at most %d", s.path, s.lines, mainLines)
		}
	}
}

func TestDomainPackagesDoNoIO(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range sources(t) {
		if !slices.Contains(domainPackages, s.dir) {
			if strings.HasSuffix(s.dir, "internal/postgres") && !s.test {
				for _, i := range s.imports {
					if strings.HasSuffix(i, "/httpapi") {
						t.Errorf("%s: storage imports transport", s.path)
					}
				}
			}
			continue
		}
		seen[s.dir] = true
		if s.test {
			continue
		}
		for _, i := range s.imports {
			own, ours := strings.CutPrefix(i, module)
			switch {
			case ours && own != "libs/event" && !strings.HasPrefix(own, "proto/gen/"),
				i == "net/http", i == "database/sql", i == "os",
				strings.HasPrefix(i, "github.com/jackc/"), strings.HasPrefix(i, "github.com/IBM/"), strings.HasPrefix(i, "github.com/redis/"):
				t.Errorf("%s: the rules import %s", s.path, i)
			}
		}
	}
	for _, d := range domainPackages {
		if !seen[d] {
			t.Errorf("there is no package %s", d)
		}
	}
}

// A failure whose handling is documented has a test, and the document says where it is.
func TestFailureModesNameTestsThatExist(t *testing.T) {
	doc, err := os.ReadFile("../docs/failure-modes.md")
	if err != nil {
		t.Fatal(err)
	}
	links := regexp.MustCompile(`\[([^\]]+)\]\(([^)]+)\)`).FindAllSubmatch(doc, -1)
	if len(links) < 50 {
		t.Errorf("%d links; has the format changed?", len(links))
	}
	for _, l := range links {
		name, file := string(l[1]), filepath.Join("../docs", string(l[2]))
		text, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
			continue
		}
		if strings.HasPrefix(name, "Test") && !strings.Contains(string(text), "func "+name+"(") {
			t.Errorf("%s has no %s", file, name)
		}
	}
	for _, l := range regexp.MustCompile(`(?m)^\| (order|payment|inventory|shipping) \| .*$`).FindAllString(string(doc), -1) {
		if !strings.Contains(l, "[Test") && !strings.Contains(l, "of [TestService]") {
			t.Errorf("no test: %s", l)
		}
	}
}
