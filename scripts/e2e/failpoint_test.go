//go:build failpoints

package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// One process of each service, so that whoever dies is missed until it is back.
func init() {
	upArgs = []string{"--tags", "failpoints", "--replicas", "1", "--log-level", "warn"}
	dir, err := os.MkdirTemp("", "waybill-failpoints-")
	if err != nil {
		panic(err)
	}
	armoury = dir
	for name, value := range map[string]string{
		"WAYBILL_FAILPOINTS": dir, "WAYBILL_E2E_REPLICAS": "1",
		"RESERVATION_TTL": "500ms", // holds lapse while the test runs
	} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
}

// armoury is the directory that the services look into (libs/failpoint).
var armoury string

// shot is a place and what happens there.
type shot struct{ place, what string }

// campaign says who dies where: each program's steps one after the other, the programs side by side. The shots of a step
// are armed together, because the first makes the second likely.
//
// Those that leave something leased come first (mail: two minutes; parcels: half of one), because the others run while it is
// waited for.
var campaign = map[string][][]shot{
	"notification": {
		{{"mail.after_claim", "kill"}},
		{{"mail.after_smtp_before_settle", "kill"}},
	},
	"shipping": {
		{{"ship.after_intent", "kill"}},
		{{"ship.in_carrier_call", "kill"}},
		{{"ship.after_carrier_before_tx2", "kill"}},
		{{"ship.after_tx2", "kill"}},
	},
	"payment": {
		{{"pay.after_intent", "kill"}},
		{{"pay.in_psp_call", "kill"}},
		{{"pay.after_psp_before_tx2", "kill"}},
		{{"pay.after_tx2", "kill"}},
		{{"refund.after_intent", "kill"}},
		{{"refund.in_psp_call", "kill"}},
		{{"refund.after_psp_before_tx2", "kill"}},
		{{"refund.after_tx2", "kill"}},
	},
	"order": {
		{{"order.after_tx", "kill"}},
		{{"order.before_202", "kill"}},
		// Nothing but a table has the command now: it is read there.
		{{"saga.after_cmd_outbox", "kill"}, {"relay.after_read", "kill"}},
		{{"relay.after_produce", "kill"}},
		{{"relay.after_mark", "kill"}},
		{{"idem.after_effect", "kill"}},
		{{"sweep.after_select", "kill"}},
		{{"cons.before_tx", "kill"}},
		{{"cons.after_tx_before_commit_offset", "kill"}},
	},
	"inventory": {
		{{"inv.after_lock", "kill@3"}},
		{{"inv.after_tx", "kill@3"}},
		{{"sweep.after_select", "kill"}},
		// Poison that heals: the handler fails until one event of up to 256 is alone with it (ten times), its key is parked, the process dies over that, and once more over the redrive.
		{{"cons.in_handler", "error*16"}, {"dlq.after_park", "kill"}, {"redrive.after_apply", "kill"}},
	},
	"gateway": {
		{{"gw.after_upstream", "kill@20"}},
		{{"auth.after_rotate", "kill"}},
	},
}

// lies are places behind an effect at the ports of the services: to the provider, the carrier, the mail server, inventory, the broker and the
// database, and between gateway and client. What happened there is told as an error, by chance.
var lies = map[string][]string{
	"order":        {"order.after_tx", "relay.after_produce", "cons.after_tx_before_commit_offset"},
	"payment":      {"pay.after_psp_before_tx2", "refund.after_psp_before_tx2", "relay.after_produce", "cons.after_tx_before_commit_offset"},
	"inventory":    {"inv.after_tx", "relay.after_produce", "cons.after_tx_before_commit_offset"},
	"shipping":     {"ship.after_carrier_before_tx2", "relay.after_produce", "cons.after_tx_before_commit_offset"},
	"gateway":      {"gw.after_upstream"},
	"notification": {"mail.after_smtp_before_settle"},
}

// liesFor is how long they are told at least, and share how often: ten times what Temporal's own suite runs with.
const (
	liesFor = 20 * time.Second
	share   = "0.1"
)

// stepWithin is more than a group takes to notice a dead member (8 s), with what a busy machine adds.
const stepWithin = 90 * time.Second

// TestEveryFailpointKills has a service die once at each place where it may, while orders of every kind run, and compares
// the books afterwards.
func TestEveryFailpointKills(t *testing.T) {
	t.Cleanup(func() { os.RemoveAll(armoury) })
	t.Run("all places are in the campaign", everyPlace)

	const stock = 100_000
	shelves := []string{shelf(t, stock), shelf(t, stock), shelf(t, stock)}
	price := get[product](t, admin, "/products/"+shelves[0]).Price
	run := &running{shelves: shelves, price: price, placed: map[string]newOrder{}}

	ctx, end := context.WithTimeout(t.Context(), 8*time.Minute)
	defer end()
	load, quiet := context.WithCancel(ctx)
	var clients errgroup.Group
	for range 6 {
		clients.Go(func() error { return run.order(load, ctx) })
	}
	clients.Go(func() error { return run.refresh(load, ctx) })
	people, home := context.WithCancel(ctx)
	var operators errgroup.Group
	operators.Go(func() error { return run.redrive(people) })

	before, err := readStatus()
	if err != nil {
		t.Fatal(err)
	}
	var shots errgroup.Group
	var kills atomic.Int32
	for program, steps := range campaign {
		shots.Go(func() error {
			for _, step := range steps {
				begun := time.Now()
				if err := fire(ctx, program, step); err != nil {
					return err
				}
				for _, s := range step {
					t.Logf("%s: %s %s, after %.1f s", program, s.place, s.what, time.Since(begun).Seconds())
					if strings.HasPrefix(s.what, "kill") {
						kills.Add(1)
					}
				}
			}
			return nil
		})
	}
	if err := shots.Wait(); err != nil {
		t.Error(err)
	}
	if err := lie(ctx); err != nil {
		t.Error(err)
	}
	quiet()
	if err := clients.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d orders, %d kills", len(run.placed), kills.Load())
	after, err := readStatus()
	if err != nil {
		t.Fatal(err)
	}
	for program := range campaign {
		if slices.Equal(pidsOf(before, program), pidsOf(after, program)) {
			t.Errorf("%s is still the process that it was", program)
		}
	}
	run.settle(t, stock)
	// And from the inside: whatever the stores can prove.
	if out, err := exec.CommandContext(ctx, platform.binary, "verify", "--data", platform.data).CombinedOutput(); err != nil {
		t.Errorf("waybill verify: %v\n%s", err, out)
	}
	home()
	if err := operators.Wait(); err != nil {
		t.Error(err)
	}
}

// lie tells lies for a while, and until each was told: what is by chance may take its time where there is little to do.
func lie(ctx context.Context) error {
	var paths []string
	for program, places := range lies {
		for _, place := range places {
			paths = append(paths, filepath.Join(armoury, program, place))
		}
	}
	defer func() {
		for _, path := range paths {
			_ = os.Remove(path)
		}
	}()
	for _, path := range paths {
		_ = os.Remove(path + ".fired") // of the campaign
		draft := filepath.Join(filepath.Dir(path), ".draft")
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(draft, []byte("error~"+share), 0o644), os.Rename(draft, path)); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, stepWithin)
	defer cancel()
	until := time.Now().Add(liesFor)
	for poll := time.Tick(100 * time.Millisecond); ; {
		var untold []string
		for _, path := range paths {
			if _, err := os.Stat(path + ".fired"); err != nil {
				untold = append(untold, path)
			}
		}
		if len(untold) == 0 && time.Now().After(until) {
			return nil
		}
		select {
		case <-poll:
		case <-ctx.Done():
			return fmt.Errorf("no lie was told at %v: %w", untold, ctx.Err())
		}
	}
}

// fire arms the shots of a step and waits until all have fired.
func fire(ctx context.Context, program string, step []shot) error {
	dir := filepath.Join(armoury, program)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, s := range step {
		// Renamed into its place: half a file is no command.
		draft := filepath.Join(dir, "."+s.place)
		if err := errors.Join(os.WriteFile(draft, []byte(s.what), 0o644), os.Rename(draft, filepath.Join(dir, s.place))); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, stepWithin)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, s := range step {
		for {
			if _, err := os.Stat(filepath.Join(dir, s.place+".fired")); err == nil {
				break
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return fmt.Errorf("%s did not come to %s within %v", program, s.place, stepWithin)
			}
		}
	}
	return nil
}

// running is the load, and what came of it.
type running struct {
	shelves []string
	price   json.Number

	mu     sync.Mutex
	placed map[string]newOrder
}

// order places orders of all kinds and does with each what its kind asks for, until load ends. What is begun is finished
// while ctx lasts.
func (r *running) order(load, ctx context.Context) error {
	kinds := []func(context.Context, newOrder) error{r.plain, r.plain, r.unknown, r.flaky, r.declined, r.lost, r.cancelled, r.cancelled, r.bare, r.hold}
	for load.Err() == nil {
		id, q := unique("f"), 1+rand.IntN(3)
		o := newOrder{
			OrderID: id, Amount: times(r.price, q), Currency: "EUR", PaymentMethod: "card", Email: id + "@example.com",
			Items: []item{{r.shelves[rand.IntN(len(r.shelves))], q}}, Address: berlin(),
		}
		if err := kinds[rand.IntN(len(kinds))](ctx, o); err != nil {
			return fmt.Errorf("order %s: %w", id, err)
		}
		select {
		case <-load.Done():
		case <-time.After(300 * time.Millisecond): // twenty a second are enough to meet every place
		}
	}
	return nil
}

func (r *running) place(ctx context.Context, o newOrder) error {
	if err := placeUntilAccepted(ctx, o); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.placed[o.OrderID] = o
	return nil
}

func (r *running) plain(ctx context.Context, o newOrder) error { return r.place(ctx, o) }

func (r *running) flaky(ctx context.Context, o newOrder) error {
	o.PaymentMethod, o.Address.City = "card_flaky", "Delayed"
	return r.place(ctx, o)
}

// unknown is an order that ends, and is told, without a message between services.
func (r *running) unknown(ctx context.Context, o newOrder) error {
	o.Items = []item{{"nothing-" + o.OrderID, 1}}
	return r.place(ctx, o)
}

func (r *running) declined(ctx context.Context, o newOrder) error {
	o.PaymentMethod = "card_declined"
	return r.place(ctx, o)
}

func (r *running) bare(ctx context.Context, o newOrder) error {
	o.Items, o.Address = nil, nil
	return r.place(ctx, o)
}

// lost is an order whose parcel gets lost. It stays for the operators.
func (r *running) lost(ctx context.Context, o newOrder) error {
	o.Address.City = "Lost"
	return r.place(ctx, o)
}

// cancelled is an order that its customer cancels while it is being paid, so that the money must come back.
func (r *running) cancelled(ctx context.Context, o newOrder) error {
	o.PaymentMethod = "card_slow"
	if err := r.place(ctx, o); err != nil {
		return err
	}
	return until(ctx, func() (bool, error) {
		a, err := customer.try(ctx, http.MethodGet, "/orders/"+o.OrderID, nil, nil)
		var seen order
		if err != nil || a.into(http.StatusOK, &seen) != nil || seen.Status == "pending" {
			return false, nil
		}
		header := http.Header{"Idempotency-Key": {"cancel-" + o.OrderID}}
		a, err = customer.try(ctx, http.MethodPost, "/orders/"+o.OrderID+"/cancel", header, nil)
		return err == nil && (a.status/100 == 2 || a.status == http.StatusConflict), nil
	})
}

// hold sets stock aside for an order that never comes.
func (r *running) hold(ctx context.Context, o newOrder) error {
	return until(ctx, func() (bool, error) {
		a, err := merchant.try(ctx, http.MethodPost, "/inventory/reserve", nil, map[string]any{"order_id": o.OrderID, "items": o.Items})
		// Answered late, the hold is over before its answer is repeated.
		return err == nil && (a.status == http.StatusOK || a.status == http.StatusConflict), nil
	})
}

// refresh exchanges refresh tokens one after the other. Whoever did not hear the answer asks again and must get it.
func (r *running) refresh(load, ctx context.Context) error {
	var grant struct {
		RefreshToken string `json:"refresh_token"`
	}
	ask := func(path string, in any) error {
		return until(ctx, func() (bool, error) {
			a, err := nobody.send(ctx, "", http.MethodPost, path, nil, in)
			if err != nil || a.status/100 == 5 || a.status == http.StatusTooManyRequests {
				return false, nil
			}
			return true, a.into(http.StatusOK, &grant)
		})
	}
	if err := ask("/auth/login", map[string]string{"username": "customer2", "password": "password"}); err != nil {
		return err
	}
	for load.Err() == nil {
		if err := ask("/auth/refresh", map[string]string{"refresh_token": grant.RefreshToken}); err != nil {
			return fmt.Errorf("refresh: %w", err)
		}
		select {
		case <-load.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
	return nil
}

// redrive is the operator: whatever is parked is driven again.
func (r *running) redrive(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(300 * time.Millisecond):
		}
		for _, path := range parkedKeys(ctx) {
			_, _ = operator.try(ctx, http.MethodPost, path+"/redrive", nil, map[string]any{"reason": "the handler is well again"})
		}
	}
}

// parkedKeys are the interventions about keys, in any service.
func parkedKeys(ctx context.Context) (paths []string) {
	for _, service := range []string{"order", "payment", "inventory", "shipping", "notification", "analytics"} {
		for _, kind := range []string{"poison", "gap"} {
			base := "/interventions/" + service
			a, err := operator.try(ctx, http.MethodGet, base+"?status=open&kind="+kind, nil, nil)
			var page struct {
				Items []struct {
					ID string `json:"id"`
				} `json:"items"`
			}
			if err != nil || a.into(http.StatusOK, &page) != nil {
				continue
			}
			for _, x := range page.Items {
				paths = append(paths, base+"/"+x.ID)
			}
		}
	}
	return paths
}

// settle waits until all orders have ended, then the operators give back what lost parcels cost, and the books are compared.
func (r *running) settle(t *testing.T, stock int) {
	ended := map[string]order{}
	ends := func(accept func(string) bool) func(context.Context) error {
		return func(ctx context.Context) error {
			open := ""
			for id := range r.placed {
				if o, ok := ended[id]; ok && accept(o.Status) {
					continue
				}
				a, err := customer.try(ctx, http.MethodGet, "/orders/"+id, nil, nil)
				if err != nil {
					return err
				}
				var o order
				if err := a.into(http.StatusOK, &o); err != nil {
					return err
				}
				if !final(o.Status) || !accept(o.Status) {
					open = fmt.Sprintf("%s is %s after %v", id, o.Status, o.events())
					break
				}
				ended[id] = o
			}
			if open != "" {
				return fmt.Errorf("%d of %d orders have ended; %s", len(ended), len(r.placed), open)
			}
			return nil
		}
	}
	eventually(t, 2*time.Minute, ends(func(string) bool { return true }))
	for id, o := range ended {
		if o.Status == "attention" {
			resolve := map[string]any{"action": "refund", "goods": "returned", "reason": "lost and found"}
			if err := operator.do(t, http.MethodPost, "/orders/"+id+"/resolve", resolve).into(http.StatusAccepted, nil); err != nil {
				t.Error(err)
			}
		}
	}
	eventually(t, time.Minute, ends(func(status string) bool { return status != "attention" }))

	books, sold, kinds := ledger(t), map[string]int{}, map[string]int{}
	for id, o := range ended {
		lines := books[id]
		checkMoney(t, o, lines)
		asked := r.placed[id]
		kinds[asked.PaymentMethod+" "+o.Status]++
		want := "completed"
		switch {
		case len(asked.Items) > 0 && strings.HasPrefix(asked.Items[0].ProductID, "nothing-"):
			want = "failed"
		case asked.PaymentMethod == "card_declined", asked.Address != nil && asked.Address.City == "Lost":
			want = "cancelled"
		case asked.PaymentMethod == "card_slow":
			want = o.Status // whoever came first; the money and the stock tell whether that was all
		}
		if o.Status != want {
			t.Errorf("order %s with %s ended %s %q, want %s: %v", id, asked.PaymentMethod, o.Status, o.Reason, want, o.events())
		}
		if n := count(lines, "deliver"); n > 1 || (n == 1) != (o.Status == "completed" && len(o.Items) > 0) {
			t.Errorf("order %s is %s and was delivered %d times", id, o.Status, n)
		}
		if n := count(lines, "ship"); n > 1 {
			t.Errorf("order %s was shipped %d times", id, n)
		}
		if o.Status == "completed" && len(o.Items) > 0 {
			sold[o.Items[0].ProductID] += o.Items[0].Quantity
		}
	}
	t.Logf("ends: %v", kinds)
	for _, id := range r.shelves {
		eventually(t, endWithin, func(context.Context) error {
			if p := get[product](t, admin, "/products/"+id); p.OnHand != stock-sold[id] || p.Reserved != 0 {
				return fmt.Errorf("%s: %d on hand, %d reserved; %d of %d were sold", id, p.OnHand, p.Reserved, sold[id], stock)
			}
			return nil
		})
	}
	eventually(t, endWithin, func(ctx context.Context) error {
		if left := parkedKeys(ctx); len(left) > 0 {
			return fmt.Errorf("still parked: %v", left)
		}
		return nil
	})
	// Each end was told, and nothing twice: copies of a message have one id.
	eventually(t, toldWithin, func(ctx context.Context) error {
		told, twice, err := mailed(ctx)
		if err != nil {
			return err
		}
		if len(twice) > 0 {
			t.Errorf("told twice, as two messages: %v", twice)
		}
		for id, o := range r.placed {
			if told[o.Email] == 0 {
				return fmt.Errorf("nobody was told of %s", id)
			}
		}
		return nil
	})
}

// mailed counts the messages of each recipient, and lists those that say the same under two ids.
func mailed(ctx context.Context) (told map[string]int, twice []string, err error) {
	told = map[string]int{}
	ids := map[string]string{} // by what is said to whom
	for after := int64(0); ; {
		var page struct {
			Items []mail
			Last  int64
		}
		if err := sandboxGet(ctx, fmt.Sprintf("/mailbox?after=%d", after), &page); err != nil {
			return nil, nil, err
		}
		for _, m := range page.Items {
			after = m.Seq
			for _, to := range m.To {
				said := to + " " + m.Subject
				if id, ok := ids[said]; ok && id != m.MessageID {
					twice = append(twice, said)
				}
				ids[said] = m.MessageID
				told[to]++
			}
		}
		if len(page.Items) == 0 || after >= page.Last {
			return told, twice, nil
		}
	}
}

// until tries until it is done, or fails for good.
func until(ctx context.Context, try func() (done bool, err error)) error {
	for {
		if done, err := try(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// everyPlace compares the campaign with the calls of libs/failpoint in the sources.
func everyPlace(t *testing.T) {
	places := map[string]bool{}
	for _, root := range []string{"../../libs", "../../services"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "testdata") {
				return err
			}
			f, err := parser.ParseFile(gotoken.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok || len(call.Args) == 0 {
					return true
				}
				called, ok := call.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if of, ok := called.X.(*ast.Ident); !ok || of.Name != "failpoint" {
					return true
				}
				name, ok := call.Args[len(call.Args)-1].(*ast.BasicLit)
				if !ok {
					t.Errorf("%s: the name of a place must be written out", path)
					return true
				}
				place, err := strconv.Unquote(name.Value)
				if err != nil {
					t.Error(err)
				}
				places[place] = true
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	armed := map[string]bool{}
	for _, steps := range campaign {
		for _, step := range steps {
			for _, s := range step {
				armed[s.place] = true
				if !places[s.place] {
					t.Errorf("there is no place %s", s.place)
				}
			}
		}
	}
	for place := range places {
		if !armed[place] {
			t.Errorf("nobody is killed at %s", place)
		}
	}
	doc, err := os.ReadFile("../../docs/failpoints.md")
	if err != nil {
		t.Fatal(err)
	}
	for place := range places {
		if !strings.Contains(string(doc), "`"+place+"`") {
			t.Errorf("docs/failpoints.md does not explain %s", place)
		}
	}
}
