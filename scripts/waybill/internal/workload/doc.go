// Package workload is a crowd of customers, merchants and operators who use the platform in
// fixed shares (RELIABILITY's mix), insist as good clients do, and write down what they asked
// for and what they were told.
//
// Whoever got no answer asks again under the same key, a bounded number of times: the history
// then says that it is not known what happened, and the oracle takes either, but only one.
package workload
