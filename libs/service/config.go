package service

import (
	"context"
	"fmt"
	"io"
	"net"
	"reflect"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sethvargo/go-envconfig"
)

// Base is the part of the configuration that all services have. A service embeds it, and its tag says where it listens
// unless told otherwise:
//
//	type Config struct {
//		service.Base `listen:"127.0.0.1:8081"`
//		DatabaseURL service.Secret `env:"DATABASE_URL,required" usage:"PostgreSQL of the service"`
//	}
type Base struct {
	HTTPAddr     string        `env:"HTTP_ADDR" usage:"public listener"`
	AdminAddr    string        `env:"ADMIN_ADDR" usage:"metrics, health and pprof; HTTP_ADDR's port + 1000 unless set"`
	LogLevel     string        `env:"LOG_LEVEL,default=info" usage:"debug, info, warn or error"`
	OTLPEndpoint string        `env:"OTLP_ENDPOINT" usage:"URL of an OTLP/HTTP collector; unset: trace ids only"`
	Env          string        `env:"WAYBILL_ENV,default=production" usage:"development or production"`
	DrainDelay   time.Duration `env:"DRAIN_DELAY,default=0s" usage:"time between readiness 503 and the end of serving; 5s behind a load balancer"`
	MaxInFlight  int           `env:"MAX_IN_FLIGHT,default=2048" usage:"requests at once; more are answered 503"`
}

// Development says whether the development profile is on. Unset means production.
func (b Base) Development() bool { return b.Env == "development" }

func (b *Base) base() *Base { return b }

// Secret is a configuration value that is never printed. string(s) is the value.
type Secret string

const redacted = "redacted"

func (s Secret) String() string               { return redacted }
func (s Secret) GoString() string             { return redacted }
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// configure fills cfg from the environment.
func configure(ctx context.Context, cfg any, env envconfig.Lookuper) (*Base, error) {
	b, ok := cfg.(interface{ base() *Base })
	if !ok {
		return nil, fmt.Errorf("configuration %T does not embed service.Base", cfg)
	}
	if err := envconfig.ProcessWith(ctx, &envconfig.Config{Target: cfg, Lookuper: env}); err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	base := b.base()
	if base.HTTPAddr == "" {
		base.HTTPAddr = listenTag(cfg)
	}
	host, port, err := net.SplitHostPort(base.HTTPAddr)
	if err != nil {
		return nil, fmt.Errorf("read HTTP_ADDR: %w", err)
	}
	if base.AdminAddr == "" {
		n, err := strconv.Atoi(port)
		if err != nil {
			return nil, fmt.Errorf("read port of HTTP_ADDR: %w", err)
		}
		if n > 0 {
			n += 1000
		}
		base.AdminAddr = net.JoinHostPort(host, strconv.Itoa(n))
	}
	if base.Env != "development" && base.Env != "production" {
		return nil, fmt.Errorf("WAYBILL_ENV is %q, neither development nor production", base.Env)
	}
	return base, nil
}

func listenTag(cfg any) string {
	if f, ok := reflect.TypeOf(cfg).Elem().FieldByName("Base"); ok {
		return f.Tag.Get("listen")
	}
	return ""
}

// variable is one line of the -h table.
type variable struct{ name, value, usage string }

// variables lists the environment variables of a configuration struct, with their defaults or, where values is set,
// with what they are (secrets redacted).
func variables(cfg reflect.Value, values bool) []variable {
	var out []variable
	for i := range cfg.NumField() {
		field, value := cfg.Type().Field(i), cfg.Field(i)
		tag, ok := field.Tag.Lookup("env")
		if !ok {
			if value.Kind() == reflect.Struct && field.IsExported() {
				out = append(out, variables(value, values)...)
			}
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		v := variable{name: name, usage: field.Tag.Get("usage")}
		if values {
			v.value = fmt.Sprint(value.Interface())
		} else if options == "required" {
			v.value = "(required)"
		} else if _, def, ok := strings.Cut(options, "default="); ok {
			v.value = def
		}
		out = append(out, v)
	}
	return out
}

func printUsage(w io.Writer, name string, cfg any) {
	fmt.Fprintf(w, "%s is configured by environment variables:\n\n", name)
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tDEFAULT\tMEANING")
	for _, v := range variables(reflect.ValueOf(cfg).Elem(), false) {
		if v.name == "HTTP_ADDR" {
			v.value = listenTag(cfg)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", v.name, v.value, v.usage)
	}
	_ = t.Flush()
}
