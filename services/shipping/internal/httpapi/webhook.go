package httpapi

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/services/shipping/internal/carrier"
	"github.com/waybill-dev/waybill/services/shipping/internal/shipment"
)

// webhookBody is what the carrier sends. Members that it adds one day are none of our business, so it is not read strictly;
// who may write it is proven by the signature.
type webhookBody struct {
	Data struct {
		OrderID  string `json:"order_id"`
		Attempt  int32  `json:"attempt"`
		Tracking string `json:"tracking"`
		Status   string `json:"status"`
		Reason   string `json:"reason"`
	} `json:"data"`
}

// webhook takes a report of the carrier. The id of the message is not kept: a shipment only ever moves forward, so a report
// that comes twice, or late, changes nothing the second time.
func (a *api) webhook(w http.ResponseWriter, r *http.Request) error {
	if err := problem.Query(r); err != nil {
		return err
	}
	if err := problem.Media(r); err != nil {
		return err
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, problem.MaxBody))
	if large := new(http.MaxBytesError); errors.As(err, &large) {
		return problem.New(http.StatusRequestEntityTooLarge, "body-too-large", "a body has at most 64 KiB")
	} else if err != nil {
		return problem.New(http.StatusBadRequest, "malformed-request", "the body cannot be read").Because(err)
	}
	if err := a.verify.Verify(raw, r.Header); err != nil {
		if errors.Is(err, standardwebhooks.ErrMessageTooOld) || errors.Is(err, standardwebhooks.ErrMessageTooNew) {
			return problem.New(http.StatusUnauthorized, "stale-webhook", "the webhook's timestamp is more than five minutes off")
		}
		return problem.New(http.StatusUnauthorized, "invalid-signature", "the webhook is not signed with our secret")
	}
	var in webhookBody
	if err := json.Unmarshal(raw, &in); err != nil {
		return problem.New(http.StatusBadRequest, "malformed-json", "the body is not the JSON that is expected here").Because(err)
	}
	report := shipment.Report{
		Key:    shipment.Key{OrderID: in.Data.OrderID, Attempt: in.Data.Attempt},
		Status: shipment.Status(in.Data.Status), Tracking: in.Data.Tracking, Reason: in.Data.Reason,
	}
	if !shipment.ValidID(report.OrderID) || report.Attempt < 1 {
		return problem.New(http.StatusUnprocessableEntity, "invalid-field", "the report names no shipment").
			Field("/data", "order_id and attempt must be given")
	}
	if err := carrier.Check(&report); err != nil {
		return problem.New(http.StatusUnprocessableEntity, "invalid-field", "the report makes no sense").Field("/data/status", err.Error())
	}
	known, err := a.Intake.Apply(r.Context(), shipment.Change{Report: report})
	if err != nil {
		return err
	}
	// Unknown: of another installation, or ahead of our own memory after a restore. Asking again would not help the carrier.
	if !known {
		return problem.JSON(w, http.StatusAccepted, map[string]bool{"known": false})
	}
	return problem.JSON(w, http.StatusOK, map[string]bool{"known": true})
}
