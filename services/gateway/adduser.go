package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"github.com/waybill-dev/waybill/libs/pg"
	"github.com/waybill-dev/waybill/services/gateway/internal/login"
	"github.com/waybill-dev/waybill/services/gateway/internal/password"
	"github.com/waybill-dev/waybill/services/gateway/internal/postgres"
)

// minPassword is NIST's shortest for a password that is the only factor (SP 800-63B-4, 3.1.1.2).
const minPassword = 15

// addUser makes a user: there is no registration, so this is how production gets its first one. The password is the first line of in, because
// an argument could be read by everybody on the machine.
func addUser(ctx context.Context, database string, args []string, in io.Reader) error {
	if len(args) != 3 || database == "" {
		return errors.New("usage: DATABASE_URL=… gateway adduser NAME TENANT ROLE[,ROLE…] < file-with-password")
	}
	tenant, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return fmt.Errorf("read tenant %q: %w", args[1], err)
	}
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read password: %w", err)
	}
	secret := strings.TrimRight(line, "\r\n")
	if len(secret) < minPassword || len(secret) > password.MaxLength {
		return fmt.Errorf("a password has %d to %d bytes", minPassword, password.MaxLength)
	}
	pool, err := pg.Open(ctx, database, zap.NewNop(), postgres.Migrations)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer pool.Close()
	added, err := postgres.New(pool).AddUser(ctx, login.User{
		Name: args[0], Tenant: tenant, Roles: strings.Split(args[2], ","), PasswordHash: password.Hash(secret),
	}, false)
	if err == nil && !added {
		err = fmt.Errorf("there is a user %s already", args[0])
	}
	return err
}
