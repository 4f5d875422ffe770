package keeper

import (
	"github.com/google/uuid"

	"github.com/waybill-dev/waybill/services/metrics-processor/internal/aggregate"
)

// Of returns what survived if it is the instance's, and nil otherwise.
func Of(former *aggregate.Survivor, id uuid.UUID) *aggregate.Survivor {
	if former == nil || former.Valid != 1 || uuid.UUID(former.Instance) != id {
		return nil
	}
	return former
}
