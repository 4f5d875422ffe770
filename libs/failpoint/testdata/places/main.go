// Command places has the same function twice, with a place and without, for the test that compares them.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/waybill-dev/waybill/libs/failpoint"
)

//go:noinline
func marked(ctx context.Context, n int) (context.Context, int, error) {
	if err := failpoint.Hit("a.place.of.this.test"); err != nil {
		return nil, 0, err
	}
	ctx = failpoint.During(ctx, "another.place.of.this.test")
	return ctx, n + 1, failpoint.After(nil, "a.third.place.of.this.test")
}

//go:noinline
func unmarked(ctx context.Context, n int) (context.Context, int, error) {
	return ctx, n + 1, nil
}

func main() {
	for range 4 {
		_, n, err := marked(context.Background(), len(os.Args))
		fmt.Println(n, err)
	}
	_, _, _ = unmarked(context.Background(), len(os.Args))
}
