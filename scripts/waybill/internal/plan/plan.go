// Package plan says which programs a stack consists of, where each listens and what
// its environment is. It does nothing by itself.
package plan

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Services lists the eight, in the order in which a person thinks of them.
var Services = []string{"gateway", "order", "payment", "inventory", "shipping", "notification", "analytics", "metrics-processor"}

// Databases are named after the services that own them.
var Databases = Services

// Host is where everything listens: nothing here is meant for the network.
const Host = "127.0.0.1"

// defaults are the ports of the documentation. A service's admin port is its port
// plus 1000 and named <service>-admin.
var defaults = map[string]int{
	"gateway": 8080, "order": 8081, "payment": 8082, "inventory": 8083, "shipping": 8084,
	"notification": 8085, "analytics": 8086, "metrics-processor": 8087, "sandbox": 8090,
	"kafka": 9092, "postgres": 15432, "redis": 16379, "smtp": 1025, "statsd": 8125, "pprof": 6060,
}

// offsets place the ports that are not near 8000 into the thousands that begin at a
// --port-base; the others keep their last three digits.
var offsets = map[string]int{"kafka": 192, "postgres": 432, "redis": 379, "smtp": 125, "statsd": 225, "pprof": 160}

// Ports maps names to ports: those of defaults, and <name>-admin.
type Ports map[string]int

// DefaultPorts are those of the documentation.
func DefaultPorts() Ports { return withAdmin(defaults, 1000) }

// PortsFrom lays all ports out in the two thousand after base: the gateway at base+80,
// its admin listener at base+1080, Kafka at base+192 and so on.
func PortsFrom(base int) (Ports, error) {
	if base < 1024 || base > 60000 {
		return nil, fmt.Errorf("port base %d: choose one from 1024 to 60000, for example 20000", base)
	}
	p := map[string]int{}
	for name, port := range defaults {
		if offset, ok := offsets[name]; ok {
			p[name] = base + offset
		} else {
			p[name] = base + port%1000
		}
	}
	return withAdmin(p, 1000), nil
}

// FreePorts takes whatever is free. All listeners are open at once, so that no port
// is given out twice.
func FreePorts() (Ports, error) {
	p := Ports{}
	var open []net.Listener
	defer func() {
		for _, l := range open {
			l.Close()
		}
	}()
	for name := range DefaultPorts() {
		l, err := net.Listen("tcp", net.JoinHostPort(Host, "0"))
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		open = append(open, l)
		p[name] = l.Addr().(*net.TCPAddr).Port
	}
	return p, nil
}

func withAdmin(p map[string]int, distance int) Ports {
	all := Ports(maps.Clone(p))
	for _, name := range append([]string{"sandbox"}, Services...) {
		all[name+"-admin"] = p[name] + distance
	}
	return all
}

// Set applies overrides written as name=port.
func (p Ports) Set(overrides []string) error {
	for _, o := range overrides {
		name, value, _ := strings.Cut(o, "=")
		port, err := strconv.Atoi(value)
		if _, known := p[name]; !known || err != nil || port < 1 || port > 65535 {
			return fmt.Errorf("--port %s: want name=port, the name one of %s", o, strings.Join(p.Names(), " "))
		}
		p[name] = port
	}
	return nil
}

// Names lists the names, sorted.
func (p Ports) Names() []string { return slices.Sorted(maps.Keys(p)) }

// Addr is host:port of a name.
func (p Ports) Addr(name string) string { return net.JoinHostPort(Host, strconv.Itoa(p[name])) }

// URL is the HTTP address of a name.
func (p Ports) URL(name string) string { return "http://" + p.Addr(name) }

// Clash names two listeners that were given the same port.
func (p Ports) Clash() error {
	by := map[int][]string{}
	for name, port := range p {
		by[port] = append(by[port], name)
	}
	var errs []error
	for port, names := range by {
		if len(names) > 1 {
			sort.Strings(names)
			errs = append(errs, fmt.Errorf("port %d is wanted by %s", port, strings.Join(names, " and ")))
		}
	}
	return errors.Join(errs...)
}

// Parts are what the services stand on, wherever it runs.
type Parts struct {
	Kafka    string // host:port, comma list
	Postgres string // URL without a database name
	Redis    string // host:port
	Auditor  string // as Postgres, for Auditor; empty where that role could not be made
}

// Auditor is the role that may read everything and change nothing.
const Auditor = "waybill_auditor"

// Secrets sign the sandbox's webhooks, and open the databases to the auditor.
type Secrets struct {
	Provider string `json:"provider"`
	Carrier  string `json:"carrier"`
	Auditor  string `json:"auditor"`
}

// Settings is what all environments are derived from.
type Settings struct {
	Ports      Ports
	Parts      Parts
	Secrets    Secrets
	Data       string // directory
	LogLevel   string
	OTLP       string
	Step       string // SANDBOX_STEP, empty for the sandbox's own
	RateLimit  string // RATE_PER_SECOND of the gateway, empty for its own
	Partitions int
	Replicas   int
	// Others are the ports of the replicas beyond the first.
	Others []Ports
	// Route, where set, may send a process another way: it is told whom the process calls
	// (see Calls) and where all replicas of that one listen, and answers with the address
	// that the process is given.
	Route func(process, callee string, at []string) string
	// Environment is added to what a service is told, by service.
	Environment map[string][]string
}

// Calls says whom each program calls: parts by their names in Ports, provider and carrier by
// those of the roles that the sandbox plays.
var Calls = map[string][]string{
	"gateway":           {"postgres", "redis", "order", "payment", "inventory", "shipping", "notification", "analytics", "metrics-processor"},
	"order":             {"postgres", "kafka", "gateway", "inventory", "payment"},
	"payment":           {"postgres", "kafka", "gateway", "provider"},
	"inventory":         {"postgres", "kafka", "gateway", "order"},
	"shipping":          {"postgres", "kafka", "gateway", "carrier"},
	"notification":      {"postgres", "kafka", "gateway", "smtp"},
	"analytics":         {"postgres", "kafka", "gateway"},
	"metrics-processor": {"postgres", "kafka", "gateway"},
	"sandbox":           {"payment", "shipping"},
}

// Process names a replica of a service: order, order-2, order-3.
func Process(service string, replica int) string {
	if replica == 0 {
		return service
	}
	return service + "-" + strconv.Itoa(replica+1)
}

// Own are the ports that a replica listens on.
func (s Settings) Own(replica int) Ports {
	if replica == 0 {
		return s.Ports
	}
	return s.Others[replica-1]
}

// to is where a process finds a callee.
func (s Settings) to(process, program, callee string) string {
	var at []string
	switch callee {
	case "postgres":
		if u, err := url.Parse(s.Parts.Postgres); err == nil {
			at = []string{u.Host}
		}
	case "kafka":
		at = []string{s.Parts.Kafka}
	case "redis":
		at = []string{s.Parts.Redis}
	case "provider", "carrier":
		at = []string{s.Ports.Addr("sandbox")}
	case "smtp":
		at = []string{s.Ports.Addr("smtp")}
	default:
		for replica := range max(s.Replicas, 1) {
			at = append(at, s.Own(replica).Addr(callee))
		}
	}
	if s.Route == nil || !slices.Contains(Calls[program], callee) {
		return at[0]
	}
	return s.Route(process, callee, at)
}

// KeysDir holds the keys that services sign their calls with.
func (s Settings) KeysDir() string { return filepath.Join(s.Data, "keys") }

// AuditorURL is the address of PostgreSQL for the auditor.
func (s Settings) AuditorURL() string {
	u, err := url.Parse(s.Parts.Postgres)
	if err != nil {
		return ""
	}
	u.User = url.UserPassword(Auditor, s.Secrets.Auditor)
	return u.String()
}

// Database is the connection string of a service's database.
func (s Settings) Database(name string) string { return s.database(name, "") }

// database is the same by way of an address, where that is not empty.
func (s Settings) database(name, via string) string {
	u, err := url.Parse(s.Parts.Postgres)
	if err != nil {
		return s.Parts.Postgres
	}
	if via != "" {
		u.Host = via
	}
	u.Path = "/" + name
	q := u.Query()
	if !q.Has("sslmode") {
		if host := u.Hostname(); host == Host || host == "localhost" || host == "::1" {
			q.Set("sslmode", "disable")
		}
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// Service is the environment of a replica of a service, the first one's being 0.
func (s Settings) Service(name string, replica int) []string {
	own, process := s.Own(replica), Process(name, replica)
	to := func(callee string) string { return s.to(process, name, callee) }
	env := []string{
		"HTTP_ADDR=" + own.Addr(name), "ADMIN_ADDR=" + own.Addr(name+"-admin"),
		"DATABASE_URL=" + s.database(name, to("postgres")),
		"KAFKA_BROKERS=" + to("kafka"), "REDIS_ADDR=" + to("redis"),
		"JWKS_URL=http://" + to("gateway") + "/.well-known/jwks.json",
		"WAYBILL_SERVICE_JWKS=" + filepath.Join(s.KeysDir(), "services.jwks"),
		"WAYBILL_SERVICE_KEY=" + filepath.Join(s.KeysDir(), name+".jwk"),
		"PROVIDER_URL=http://" + to("provider"), "PROVIDER_SECRET=" + s.Secrets.Provider,
		"CARRIER_URL=http://" + to("carrier"), "CARRIER_SECRET=" + s.Secrets.Carrier,
		"SMTP_ADDR=" + to("smtp"), "MAIL_FROM=waybill@example.com",
		"PPROF_ADDR=" + own.Addr("pprof"), "STATSD_ADDR=" + own.Addr("statsd"),
		"STATE_DIR=" + filepath.Join(s.Data, "metrics-processor"),
	}
	for _, other := range Services {
		if other != "gateway" {
			env = append(env, strings.ToUpper(strings.ReplaceAll(other, "-", "_"))+"_URL=http://"+to(other))
		}
	}
	if name == "gateway" {
		env = append(env, "GATEWAY_REPLICAS="+strconv.Itoa(s.Replicas))
		if s.RateLimit != "" {
			env = append(env, "RATE_PER_SECOND="+s.RateLimit)
		}
	}
	if name != "gateway" && name != "metrics-processor" { // those two are also measured alone
		env = append(env, Share()...)
	}
	env = append(env, s.Environment[name]...)
	return append(env, s.common()...)
}

// Share is what keeps a process from spreading over all of this machine's processors, where a dozen others want them: half
// of them, one at least. On two of them an order takes 8 % less CPU than with two each (`waybill bench orders`, by the ratio
// to what the load takes): threads that look for work wake each other less. A GOMAXPROCS that is set stays.
func Share() []string {
	if os.Getenv("GOMAXPROCS") != "" {
		return nil
	}
	return []string{"GOMAXPROCS=" + strconv.Itoa(max(1, runtime.NumCPU()/2))}
}

// Sandbox is the environment of the sandbox.
func (s Settings) Sandbox() []string {
	env := []string{
		"HTTP_ADDR=" + s.Ports.Addr("sandbox"), "ADMIN_ADDR=" + s.Ports.Addr("sandbox-admin"),
		"SMTP_LISTEN=" + s.Ports.Addr("smtp"), "DATA_DIR=" + filepath.Join(s.Data, "sandbox"),
		"PAYMENT_WEBHOOK_URL=http://" + s.to("sandbox", "sandbox", "payment") + "/webhooks/payments",
		"SHIPPING_WEBHOOK_URL=http://" + s.to("sandbox", "sandbox", "shipping") + "/webhooks/shipping",
		"PROVIDER_SECRET=" + s.Secrets.Provider, "CARRIER_SECRET=" + s.Secrets.Carrier,
	}
	if s.Step != "" {
		env = append(env, "SANDBOX_STEP="+s.Step)
	}
	env = append(env, Share()...)
	return append(env, s.common()...)
}

func (s Settings) common() []string {
	env := []string{"WAYBILL_ENV=development", "LOG_LEVEL=" + s.LogLevel, "WAYBILL_PARTITIONS=" + strconv.Itoa(s.Partitions)}
	if s.OTLP != "" {
		env = append(env, "OTLP_ENDPOINT="+s.OTLP)
	}
	return env
}

// Listeners names the ports that one program opens, to check them before it does.
func Listeners(name string) []string {
	switch name {
	case "kafka", "redis", "postgres":
		return []string{name}
	case "sandbox":
		return []string{name, name + "-admin", "smtp"}
	case "metrics-processor":
		return []string{name, name + "-admin", "statsd", "pprof"}
	default:
		return []string{name, name + "-admin"}
	}
}
