package main

import (
	"io"
	"net/http"
	"testing"
)

// BenchmarkProxied is one request with a token through the whole gateway to a service in this process: limits leased, token cached.
func BenchmarkProxied(b *testing.B) {
	g := start(b, "RATE_PER_SECOND", "0")
	token := g.login("customer").Access
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	b.ReportAllocs()
	b.SetParallelism(16)
	b.ResetTimer() // starting takes seconds
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r, _ := http.NewRequest("GET", g.url+"/orders/o-1", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			resp, err := client.Do(r)
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
}
