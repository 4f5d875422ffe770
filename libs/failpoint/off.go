//go:build !failpoints

package failpoint

import "context"

// Enabled says whether this program was built to die.
const Enabled = false

// Hit does nothing in this build.
func Hit(string) error { return nil }

// After is err.
func After(err error, _ string) error { return err }

// During does nothing in this build.
func During(ctx context.Context, _ string) context.Context { return ctx }
