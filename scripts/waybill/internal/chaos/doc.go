// Package chaos runs the platform with everything going wrong, and asks the oracle whether
// anything was lost, doubled, oversold or left stuck.
//
// A run starts two replicas of every service on fresh data, each with a proxy on every edge;
// lets a load run, without faults first where a comparison is wanted and then with those of a
// schedule; heals everything; waits until the platform rests; and has the oracle check. The
// verdict is inconclusive where a path was not reached that a proof would have to include.
package chaos
