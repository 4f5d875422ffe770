package conformance_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/libs/testkit/conformance"
)

func TestMain(m *testing.M) { conformance.Main(m) }

// With the first two the suite runs against brokers that are there: their addresses, and a command that kills them and
// starts them again. The third makes a soak of it.
const (
	brokersEnv = "WAYBILL_TEST_KAFKA"
	restartEnv = "WAYBILL_TEST_KAFKA_RESTART"
	roundsEnv  = "WAYBILL_TEST_ROUNDS"
)

func TestOutboxToInbox(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 30 s")
	}
	var o conformance.Options
	if brokers := os.Getenv(brokersEnv); brokers == "" {
		o = conformance.Embedded(t)
	} else {
		o.Brokers = strings.Split(brokers, ",")
		if command := os.Getenv(restartEnv); command != "" {
			o.Restart = func(ctx context.Context) error {
				if out, err := exec.CommandContext(ctx, "sh", "-c", command).CombinedOutput(); err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				return nil
			}
		}
	}
	o.Rounds, _ = strconv.Atoi(os.Getenv(roundsEnv))
	o.Seed = uint64(time.Now().UnixNano())
	t.Logf("seed %d", o.Seed)
	r := conformance.Run(t, o)
	t.Logf("%+v", r)
	if r.Takeovers < 5 || r.Evictions < 1 || r.Duplicates < 1 || r.Dropped < 1 || r.Handed < 100 || r.Read < 1 {
		t.Errorf("too little happened to prove anything: %+v", r)
	}
}
