package httpapi

import (
	"net/http"

	"github.com/waybill-dev/waybill/libs/problem"
)

type list struct {
	Items any   `json:"items"`
	Last  int64 `json:"last"`
}

func (a *API) readLedger(w http.ResponseWriter, r *http.Request) error {
	after, limit, err := page(r)
	if err != nil {
		return err
	}
	es, last, err := a.Ledger.Read(after, limit)
	if err != nil {
		return err
	}
	return problem.JSON(w, http.StatusOK, list{es, last})
}

func (a *API) readMailbox(w http.ResponseWriter, r *http.Request) error {
	after, limit, err := page(r, "to")
	if err != nil {
		return err
	}
	ms, last := a.Mailbox.Read(r.URL.Query().Get("to"), after, limit)
	return problem.JSON(w, http.StatusOK, list{ms, last})
}
