package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/waybill-dev/waybill/libs/inbox"
	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/inventory/internal/stock"
)

const productColumns = `tenant, product_id, name, price, currency, on_hand, reserved, event_seq`

// Products lists a tenant's products by id, beginning after the given one.
func (s *Store) Products(ctx context.Context, tenant int64, after string, limit int) ([]stock.Product, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+productColumns+` FROM products WHERE tenant = $1 AND product_id > $2 ORDER BY product_id LIMIT $3`, tenant, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list products: %w", err)
	}
	products, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p stock.Product, err error) {
		err = row.Scan(scanProduct(&p)...)
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("list products: %w", err)
	}
	return products, nil
}

// Product finds one product.
func (s *Store) Product(ctx context.Context, k stock.Key) (p stock.Product, found bool, err error) {
	err = s.pool.QueryRow(ctx, `SELECT `+productColumns+` FROM products WHERE tenant = $1 AND product_id = $2`, k.Tenant, k.Product).Scan(scanProduct(&p)...)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, false, nil
	}
	if err != nil {
		return p, false, fmt.Errorf("read product: %w", err)
	}
	return p, true, nil
}

// PutProduct makes a product without stock, or gives one that exists another name and price. Reservations keep the price
// that they were made at. Saying it again changes nothing; with a key the first answer is given again, too, whatever
// somebody else has made of the product since.
func (s *Store) PutProduct(ctx context.Context, want stock.Product, key *inbox.Request, render func(stock.Product, bool) *inbox.Response) (p stock.Product, created bool, replayed *inbox.Response, err error) {
	err = again(ctx, s.pool, func(ctx context.Context, u *pg.Unit) error {
		b := stock.NewBook(s.terms)
		load(u, b, wants{lines: []stock.Key{want.Key}})
		var kept *responses
		if key != nil {
			kept = findResponses(u, []inbox.Request{*key})
		}
		if err := u.Fetch(ctx); err != nil {
			return fmt.Errorf("lock product: %w", err)
		}
		if key != nil {
			var err error
			if replayed, err = kept.get(*key); replayed != nil || err != nil {
				return err
			}
		}
		is, found := b.Product(want.Key)
		created = !found
		if created {
			is = stock.Product{Key: want.Key}
		}
		same := found && is.Name == want.Name && is.Price == want.Price && is.Currency == want.Currency
		is.Name, is.Price, is.Currency = want.Name, want.Price, want.Currency
		if !same {
			is.EventSeq++
		}
		p = is
		if key != nil {
			kept.put(*key, render(p, created))
			kept.store(u)
		}
		if same {
			return nil
		}
		if created {
			// Where another replica made it since the lock, the unit runs again and finds it.
			u.Guard(1, `INSERT INTO products (tenant, product_id, name, price, currency, event_seq) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
				p.Tenant, p.Product, p.Name, p.Price, p.Currency, p.EventSeq)
		} else {
			u.Guard(1, `UPDATE products SET name = $3, price = $4, currency = $5, event_seq = $6, updated_at = now() WHERE tenant = $1 AND product_id = $2`,
				p.Tenant, p.Product, p.Name, p.Price, p.Currency, p.EventSeq)
		}
		s.out.Add(u, events(ctx, []stock.Note{stock.Catalogued(p)})...)
		return nil
	})
	if err != nil {
		return stock.Product{}, false, nil, fmt.Errorf("put product: %w", err)
	}
	return p, created, replayed, nil
}

// Restock changes a product's stock by an amount, once per idempotency key.
func (s *Store) Restock(ctx context.Context, a stock.Adjustment, key inbox.Request, render func(stock.Product, error) *inbox.Response) (p stock.Product, replayed *inbox.Response, err error) {
	var refused error
	err = again(ctx, s.pool, func(ctx context.Context, u *pg.Unit) error {
		b := stock.NewBook(s.terms)
		load(u, b, wants{lines: []stock.Key{a.Key}})
		kept := findResponses(u, []inbox.Request{key})
		if err := u.Fetch(ctx); err != nil {
			return fmt.Errorf("lock product: %w", err)
		}
		var err error
		if replayed, err = kept.get(key); replayed != nil || err != nil {
			return err
		}
		p, refused = b.Adjust(a)
		kept.put(key, render(p, refused))
		kept.store(u)
		s.save(ctx, u, b)
		return nil
	})
	if err != nil {
		return stock.Product{}, nil, fmt.Errorf("restock product: %w", err)
	}
	return p, replayed, refused
}

// Seed makes the products that do not exist yet, with the stock they are given. Products that exist are left alone, so it
// may run at each start and on each replica.
func (s *Store) Seed(ctx context.Context, products []stock.Product) error {
	err := pg.Do(ctx, s.pool, func(ctx context.Context, u *pg.Unit) error {
		b := stock.NewBook(s.terms)
		var w wants
		for _, p := range products {
			w.lines = append(w.lines, p.Key)
		}
		load(u, b, w)
		if err := u.Fetch(ctx); err != nil {
			return fmt.Errorf("lock products: %w", err)
		}
		var tenant, price []int64
		var id, name, currency []string
		for _, p := range products {
			if _, exists := b.Product(p.Key); exists {
				continue
			}
			tenant, id, name = append(tenant, p.Tenant), append(id, p.Product), append(name, p.Name)
			price, currency = append(price, p.Price), append(currency, p.Currency)
			stocked := p.OnHand
			p.OnHand, p.Reserved = 0, 0
			b.PutProduct(p)
			if _, err := b.Adjust(stock.Adjustment{Key: p.Key, Document: "seed", Op: stock.Restocked, Delta: stocked, Reason: "opening stock"}); err != nil {
				return err
			}
		}
		if len(id) == 0 {
			return nil
		}
		u.Guard(len(id), `
INSERT INTO products (tenant, product_id, name, price, currency)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::text[]) ON CONFLICT DO NOTHING`, tenant, id, name, price, currency)
		s.save(ctx, u, b)
		return nil
	})
	if err != nil {
		return fmt.Errorf("seed products: %w", err)
	}
	return nil
}
