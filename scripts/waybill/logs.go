package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill/libs/testkit/postgres"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/supervise"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/terminal"
)

func newLogs(c *common) *cobra.Command {
	var follow bool
	var lines int
	cmd := &cobra.Command{
		Use:   "logs [name ...]",
		Short: "Show the logs of all processes or of some",
		Long:  "Show the ends of the logs, each line behind the name of its process. They are files in\n<data>/logs, kept until the next but one \"up\".",
		Example: `  waybill logs order payment
  waybill logs -f
  waybill logs -n 1000 order | grep o-1`,
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := logFiles(c.data, args)
			if err != nil {
				return err
			}
			for _, f := range files {
				if text := supervise.Tail(f.path, lines); text != "" {
					f.print(c.out, text)
				}
			}
			if !follow {
				return nil
			}
			return followAll(cmd.Context(), c.out, files)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as lines are written")
	cmd.Flags().IntVarP(&lines, "lines", "n", 10, "how many of each to begin with")
	return cmd
}

type logFile struct {
	name, path string
	at         int64
	rest       []byte // an unfinished line
}

func logFiles(data string, wanted []string) ([]*logFile, error) {
	paths, err := filepath.Glob(filepath.Join(data, "logs", "*.log"))
	if err != nil {
		return nil, err
	}
	if dir, err := postgres.Place(filepath.Join(data, "postgres")); err == nil {
		if _, err := os.Stat(filepath.Join(dir, "postgres.log")); err == nil {
			paths = append(paths, filepath.Join(dir, "postgres.log"))
		}
	}
	var all []*logFile
	var known []string
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".log")
		known = append(known, name)
		if len(wanted) == 0 || slices.Contains(wanted, name) {
			all = append(all, &logFile{name: name, path: path})
		}
	}
	for _, w := range wanted {
		if !slices.Contains(known, w) {
			return nil, fmt.Errorf("there is no log of %s in %s; there are %s", w, data, strings.Join(known, " "))
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("there are no logs in %s: nothing has run there", data)
	}
	for _, f := range all {
		if info, err := os.Stat(f.path); err == nil {
			f.at = info.Size()
		}
	}
	return all, nil
}

func (f *logFile) print(out *terminal.Screen, text string) {
	for line := range strings.SplitSeq(text, "\n") {
		out.Line("%s %s", out.Paint(terminal.Cyan, fmt.Sprintf("%-17s", f.name)), line)
	}
}

// followAll looks for new lines four times a second: notification by the kernel would
// save nothing that anybody notices.
func followAll(ctx context.Context, out *terminal.Screen, files []*logFile) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, f := range files {
			f.read(out)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (f *logFile) read(out *terminal.Screen) {
	info, err := os.Stat(f.path)
	if err != nil {
		return
	}
	if info.Size() < f.at {
		f.at, f.rest = 0, nil // a new run began a new file
	}
	file, err := os.Open(f.path)
	if err != nil {
		return
	}
	defer file.Close()
	b, err := io.ReadAll(io.NewSectionReader(file, f.at, info.Size()-f.at))
	f.at += int64(len(b))
	if err != nil || len(b) == 0 {
		return
	}
	b = append(f.rest, b...)
	end := bytes.LastIndexByte(b, '\n')
	f.rest = bytes.Clone(b[end+1:])
	if end >= 0 {
		f.print(out, string(b[:end]))
	}
}
