// Package service is the life of a process: configuration, listeners, readiness, processes that run, and the way down.
//
//	func main() { service.Main("order", run) }
//
//	func run(ctx context.Context, s *service.Service, cfg Config) error {
//		pool, err := pg.Open(ctx, string(cfg.DatabaseURL), s.Log, ...)
//		if err != nil { return err }
//		defer pool.Close()
//		s.Check("postgres", pool.Ping)
//		s.Go("outbox", box.Run)       // started by Serve, stopped in reverse order
//		s.Consume("consumer", ...)    // the same, but stopped first
//		s.Serve(routes)               // blocks until the process has to end
//		return nil
//	}
//
// Both listeners are open before run is called, so a taken port ends the process at once and early clients wait instead of
// being refused. The admin listener answers from the beginning: /livez 200, /readyz 503 until Serve.
//
// On SIGINT or SIGTERM: readiness turns 503 and DRAIN_DELAY passes while requests are still served (load balancers learn of it);
// consumers stop; the public server drains, at most 20 s, with Draining closed for streams; the other processes stop in
// reverse order; run's deferred calls close pools; spans are flushed; exit 0. A second signal exits 130 at once. When a process
// fails, the way down is the same and the exit code is 1.
package service
