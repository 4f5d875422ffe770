package stack

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/plan"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/terminal"
)

// FindSource walks up from the working directory to the source tree.
func FindSource() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			if _, err := os.Stat(filepath.Join(dir, "services", "order")); err == nil {
				return dir, nil
			}
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("this is not inside the source tree of waybill: the services are built from it; change into it or name it with --source")
		}
	}
}

// build compiles all programs at once, so that packages they share are compiled once.
func build(ctx context.Context, o Options, into string, step *terminal.Step) error {
	if err := os.MkdirAll(into, 0o755); err != nil {
		return err
	}
	args := []string{"build", "-v", "-o", into + string(filepath.Separator)}
	if o.Race {
		args = append(args, "-race")
	}
	if o.Tags != "" {
		args = append(args, "-tags", o.Tags)
	}
	for _, name := range plan.Services {
		args = append(args, "./services/"+name)
	}
	args = append(args, "./scripts/sandbox")
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = o.Source
	// Ctrl-C must reach the compiler through the context alone, so that what is said
	// about it is said once.
	cmd.SysProcAttr = ownGroup()
	var said bytes.Buffer
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("the services are built with the go command, which does not run: %w", err)
	}
	counted := make(chan struct{})
	go func() {
		defer close(counted)
		lines := bufio.NewScanner(r)
		for n := 1; lines.Scan(); n++ {
			said.WriteString(lines.Text() + "\n")
			step.Remark("%d packages, %s", n, lines.Text())
		}
		_, _ = io.Copy(io.Discard, r)
	}()
	err := cmd.Wait()
	w.Close()
	<-counted
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("go build: %w\n%s", err, said.Bytes())
	}
	return nil
}
