package main

import (
	"time"

	"github.com/waybill-dev/waybill/libs/service"
)

// Config is what the gateway is told from outside.
type Config struct {
	service.Base   `listen:"127.0.0.1:8080"`
	DatabaseURL    service.Secret `env:"DATABASE_URL,required" usage:"PostgreSQL of users, refresh tokens and signing keys"`
	RedisAddr      string         `env:"REDIS_ADDR,default=127.0.0.1:6379" usage:"budgets of the rate limits"`
	RedisTimeout   time.Duration  `env:"REDIS_TIMEOUT,default=200ms" usage:"what a limit may add to a request before the gateway decides alone"`
	RedisPassword  service.Secret `env:"REDIS_PASSWORD" usage:"password of Redis"`
	TrustedProxies []string       `env:"TRUSTED_PROXIES" usage:"CIDRs whose X-Forwarded-For is believed; unset: none"`
	MetricsAllow   []string       `env:"METRICS_ALLOW,default=127.0.0.0/8,::1/128" usage:"CIDRs that may read /metrics in production"`
	Limits         Limits
	Upstreams      Upstreams
}

// Limits are the policies that an operator may turn.
type Limits struct {
	Rate     int `env:"RATE_PER_SECOND,default=2000" usage:"requests per second and principal; 0: unlimited"`
	Login    int `env:"LOGIN_PER_MINUTE,default=10" usage:"failed logins per minute and address"`
	Replicas int `env:"GATEWAY_REPLICAS,default=1" usage:"gateways that share a budget while Redis is away"`
}

// Upstreams are the services behind.
type Upstreams struct {
	Order            string `env:"ORDER_URL,default=http://127.0.0.1:8081" usage:"order service"`
	Payment          string `env:"PAYMENT_URL,default=http://127.0.0.1:8082" usage:"payment service"`
	Inventory        string `env:"INVENTORY_URL,default=http://127.0.0.1:8083" usage:"inventory service"`
	Shipping         string `env:"SHIPPING_URL,default=http://127.0.0.1:8084" usage:"shipping service"`
	Notification     string `env:"NOTIFICATION_URL,default=http://127.0.0.1:8085" usage:"notification service"`
	Analytics        string `env:"ANALYTICS_URL,default=http://127.0.0.1:8086" usage:"analytics service"`
	MetricsProcessor string `env:"METRICS_PROCESSOR_URL,default=http://127.0.0.1:8087" usage:"metrics processor"`
}
