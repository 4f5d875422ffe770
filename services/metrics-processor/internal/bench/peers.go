package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/workload"
)

// contenders are programs that measure peers: modules of their own, so that the service links none of what they link.
type contenders []string

// buildPeers builds the peers' modules that are in the tree. What is not built when ctx ends is left out, and said so: agents
// take minutes the first time.
func buildPeers(ctx context.Context, dir string, log io.Writer) (programs contenders) {
	root := ""
	for _, at := range []string{"services/metrics-processor/peers", "peers"} {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			root = at
		}
	}
	if root == "" {
		fmt.Fprintln(log, "bench: no peers here, run it at the root of the tree to be compared with them")
		return nil
	}
	for _, module := range []string{root, filepath.Join(root, "agents")} {
		program, err := filepath.Abs(filepath.Join(dir, "bench-"+filepath.Base(module)))
		if err != nil {
			fmt.Fprintf(log, "bench: %s left out: %v\n", module, err)
			continue
		}
		cmd := exec.CommandContext(ctx, "go", "build", "-o", program, ".")
		cmd.Dir, cmd.Env = module, append(os.Environ(), "GOWORK=off")
		cmd.WaitDelay = time.Second
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(log, "bench: %s left out: go build: %v %s\n", module, err, bytes.TrimSpace(out))
			continue
		}
		programs = append(programs, program)
	}
	return programs
}

// run measures all peers once, each program in a fresh process.
func (c contenders) run(ctx context.Context, goroutines []int, d time.Duration, log io.Writer) (rates []workload.Rate, err error) {
	gs := make([]string, len(goroutines))
	for i, g := range goroutines {
		gs[i] = strconv.Itoa(g)
	}
	for _, program := range c {
		cmd := exec.CommandContext(ctx, program, "-goroutines", strings.Join(gs, ","), "-time", d.String())
		var said bytes.Buffer
		cmd.Stderr = &said // VictoriaMetrics logs what it does
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			return nil, fmt.Errorf("run peers: %w", err)
		}
		if err := cmd.Start(); err != nil {
			return nil, fmt.Errorf("run peers: %w", err)
		}
		lines := bufio.NewScanner(pipe)
		var bad error
		for lines.Scan() {
			var r workload.Rate
			if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
				bad = fmt.Errorf("read what peers say: %w", err)
			}
			rates = append(rates, r)
		}
		err = errors.Join(bad, lines.Err(), cmd.Wait())
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			fmt.Fprintf(log, "%s", said.Bytes())
			return nil, fmt.Errorf("run peers: %w", err)
		}
	}
	return rates, nil
}
