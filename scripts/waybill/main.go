// Waybill is the one command-line program of the platform: it starts everything on one
// machine, shows what runs, places orders, and looks into what went wrong.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill/scripts/waybill/internal/terminal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newRoot().ExecuteContext(ctx)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		screen := terminal.New(os.Stderr)
		screen.Line("%s %v", screen.Paint(terminal.Red, "waybill:"), err)
		code := 1
		var exit exitError
		if errors.As(err, &exit) {
			code = exit.code
		}
		os.Exit(code)
	}
}

// common holds what all verbs share.
type common struct {
	data string
	out  *terminal.Screen
}

func newRoot() *cobra.Command {
	c := &common{out: terminal.New(os.Stdout)}
	root := &cobra.Command{
		Use:   "waybill",
		Short: "The order platform on one machine",
		Long: `The order platform on one machine.

  waybill up        builds and starts everything, places a sample order, stays
  waybill status    shows what runs, whether it is ready and what it takes
  waybill order     places orders, also ones that fail in a way of your choice
  waybill dlq       shows what needs a person, and lets you decide
  waybill verify    proves that money, stock and events balance
  waybill chaos     breaks everything under load, and has verify prove that nothing was lost
  waybill down      stops everything`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&c.data, "data", ".waybill", "directory with the data, the logs and the programs that were built")
	root.AddCommand(
		newUp(c), newStatus(c), newDown(c), newReset(c), newLogs(c),
		newOrder(c), newEvents(c), newDLQ(c), newVerify(c), newChaos(c), newBench(c),
		newKeys(c), newKafka(), newRedis(),
	)
	return root
}
