// Package proxy carries TCP connections and can make them bad: late, slow, silent, cut.
//
// It is a proxy of our own, as sarama keeps one for its tests: Shopify/toxiproxy v2.12 as a
// library brings an HTTP server, a metrics registry and two loggers along, has no link that
// is silent in one direction only, closes what it has held back when a fault ends (a network
// that heals delivers it), and could not rewrite what Kafka's brokers say of their addresses.
//
// A proxy stands on one edge, between one process and what it calls, so that "order-2 cannot
// reach PostgreSQL" can be said. It spreads connections over the replicas of the callee, as a
// service of Kubernetes does.
package proxy
