package httpapi

import (
	"errors"
	"net/http"

	"github.com/waybill-dev/waybill/libs/problem"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/carrier"
	"github.com/waybill-dev/waybill/scripts/sandbox/internal/fault"
)

type shipmentRequest struct {
	Key     string `json:"key"`
	OrderID string `json:"order_id"`
	Attempt int    `json:"attempt"`
	Address struct {
		Name       string `json:"name"`
		Line1      string `json:"line1"`
		Line2      string `json:"line2"`
		City       string `json:"city"`
		Region     string `json:"region"`
		PostalCode string `json:"postal_code"`
		Country    string `json:"country"`
	} `json:"address"`
	Items []struct {
		ProductID string `json:"product_id"`
		Quantity  int64  `json:"quantity"`
	} `json:"items"`
}

func (a *API) ship(w http.ResponseWriter, r *http.Request) error {
	in, err := problem.Decode[shipmentRequest](w, r)
	if err != nil {
		return err
	}
	if err := checkShipment(in); err != nil {
		return err
	}
	f := a.Faults.Take(fault.ShipCreate, in.OrderID)
	var p carrier.Parcel
	return serve(w, r, f, func() (answer, error) {
		var err error
		p, err = a.Carrier.Create(carrier.Request{
			Key: in.Key, OrderID: in.OrderID, Attempt: in.Attempt, City: in.Address.City,
		}, f.Outcome)
		switch {
		case errors.Is(err, carrier.ErrDown):
			return answer{}, problem.New(http.StatusServiceUnavailable, "unavailable", err.Error())
		case errors.Is(err, carrier.ErrRefused):
			return answer{}, problem.New(http.StatusUnprocessableEntity, "address-refused", err.Error())
		case errors.Is(err, carrier.ErrKeyReused):
			return answer{}, problem.New(http.StatusConflict, "key-reused", err.Error())
		}
		return answer{status: http.StatusAccepted, body: p}, err
	}, func() { a.ReportParcel(p) })
}

func (a *API) findShipment(w http.ResponseWriter, r *http.Request) error {
	k, err := key(r)
	if err != nil {
		return err
	}
	return serve(w, r, a.Faults.Take(fault.ShipGet, order(k)), func() (answer, error) {
		p, ok := a.Carrier.Find(k)
		if !ok {
			return answer{}, unseen()
		}
		return answer{status: http.StatusOK, body: p}, nil
	}, func() {})
}

// ReportParcel sends the shipping webhook about a parcel.
func (a *API) ReportParcel(p carrier.Parcel) { a.Shipping.Send("shipment."+p.Status, p.OrderID, p) }

func checkShipment(in shipmentRequest) error {
	p := problem.New(http.StatusUnprocessableEntity, "invalid-field", "the shipment cannot be taken")
	switch {
	case in.Key == "" || len(in.Key) > maxKey:
		return p.Field("/key", "1 to 128 characters")
	case in.OrderID == "" || len(in.OrderID) > 64:
		return p.Field("/order_id", "1 to 64 characters")
	case in.Attempt < 1:
		return p.Field("/attempt", "a number from 1")
	case in.Address.City == "":
		return p.Field("/address/city", "must be given")
	case len(in.Items) == 0:
		return p.Field("/items", "at least one")
	}
	return nil
}
