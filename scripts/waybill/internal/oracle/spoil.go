package oracle

import (
	"context"
	"errors"
	"fmt"

	"github.com/waybill-dev/waybill/libs/stream"
	"github.com/waybill-dev/waybill/scripts/waybill/internal/history"
)

// spoiler makes the stores look other than they are: databases in transactions that are rolled back, the rest on its way
// into the check. Nobody else sees any of it.
type spoiler struct {
	sql     map[string][]string // by database
	records func(stream.Message) []stream.Message
	entries func(Entry) []Entry
	mails   func(Mail) []Mail
	behind  map[string]int64 // what readers have not committed
	told    []history.Op     // what clients were told besides
}

// errNoVictim says that there is nothing to corrupt in this way.
var errNoVictim = errors.New("no order here went that way")

func (s *spoiler) database(ctx context.Context, d *database) error {
	if s == nil {
		return nil
	}
	if len(s.sql[d.name]) == 0 {
		return nil
	}
	// Triggers that would refuse it sleep; nobody waits long for a table that somebody uses.
	if _, err := d.tx.Exec(ctx, `SET LOCAL session_replication_role = replica; SET LOCAL lock_timeout = '5s'`); err != nil {
		return fmt.Errorf("only a superuser's sessions can be spoilt: %w", err)
	}
	for _, sql := range s.sql[d.name] {
		tag, err := d.tx.Exec(ctx, sql)
		if err != nil {
			return err
		}
		if (tag.Insert() || tag.Update() || tag.Delete()) && tag.RowsAffected() == 0 {
			return errNoVictim
		}
	}
	// What was switched off for the corruption must look as ever to the check.
	_, err := d.tx.Exec(ctx, `SET LOCAL session_replication_role = origin`)
	return err
}

func (s *spoiler) record(m stream.Message) []stream.Message {
	if s == nil || s.records == nil {
		return []stream.Message{m}
	}
	return s.records(m)
}

func (s *spoiler) entry(e Entry) []Entry {
	if s == nil || s.entries == nil {
		return []Entry{e}
	}
	return s.entries(e)
}

func (s *spoiler) mail(m Mail) []Mail {
	if s == nil || s.mails == nil {
		return []Mail{m}
	}
	return s.mails(m)
}

func (s *spoiler) lag(behind map[string]int64) {
	if s == nil {
		return
	}
	for what, n := range s.behind {
		behind[what] += n
	}
}

func (s *spoiler) histories() []history.Op {
	if s == nil {
		return nil
	}
	return s.told
}
