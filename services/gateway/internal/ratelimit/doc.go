// Package ratelimit decides how often somebody may ask.
//
// A policy is GCRA: a burst, and one more each interval. Its whole state is one number, the theoretical arrival time (TAT) at which the
// budget is full again, so a decision is one Lua script in Redis, on Redis' clock, in integer microseconds: exact over any number of
// gateways.
//
// Redis is never a reason to be down and never a reason to be without limits. While it does not answer, each gateway decides alone on its
// share of the budget (1/replicas; half of that for logins), and asks Redis again after a second.
package ratelimit
