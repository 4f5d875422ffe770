package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill/libs/auth"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/keys"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/plan"
)

// nonroot is the user of the services' images.
const nonroot = 65532

func newKeys(c *common) *cobra.Command {
	var dir, secret string
	var owner int
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Make the keys that services sign their calls with",
		Long: `Make the keys that services sign their calls with: <service>.jwk for each, private, and
services.jwks with the public halves of all. What exists is kept. "up" does this by itself.`,
		Example: `  waybill keys --dir ./keys
  waybill keys --kubernetes service-keys     # inside a pod: as a secret of its namespace`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if secret != "" && dir == "" {
				tmp, err := os.MkdirTemp("", "keys-")
				if err != nil {
					return err
				}
				defer os.RemoveAll(tmp)
				dir = tmp
			}
			if dir == "" {
				dir = filepath.Join(c.data, "keys")
			}
			if err := auth.GenerateServiceKeys(dir, plan.Services); err != nil {
				return err
			}
			if secret != "" {
				kept, err := keys.Store(cmd.Context(), dir, secret)
				if err == nil && kept {
					c.out.Line("secret %s exists already and is kept", secret)
				}
				return err
			}
			return giveTo(owner, dir)
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "where to write them (default <data>/keys)")
	f.StringVar(&secret, "kubernetes", "", "store them as the Kubernetes secret of this name")
	f.IntVar(&owner, "owner", nonroot, "the uid that may read them, where root makes them")
	return cmd
}

// giveTo changes the owner of the keys, which only root can. In Compose, a fresh volume
// belongs to root, and the services do not run as root.
func giveTo(owner int, dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return err
	}
	for _, file := range append(files, dir) {
		if err := os.Chown(file, owner, owner); err != nil {
			return err
		}
	}
	return nil
}
