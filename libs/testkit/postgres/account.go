package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is who the server's processes run as. The zero value is ourselves.
type account struct {
	name     string
	uid, gid uint32
	other    bool // not ourselves: files must be given away, processes started as it
}

// serverUser picks who runs the server. PostgreSQL refuses uid 0 for good reason, so
// root lends it the account that the distribution made for it, or nobody.
func serverUser() (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil || uid == 0 {
			continue
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			continue
		}
		return account{name: name, uid: uint32(uid), gid: uint32(gid), other: true}, nil
	}
	return account{}, errors.New("PostgreSQL does not run as root and this machine has neither a user postgres nor nobody: create one (useradd --system postgres) or run as an ordinary user")
}

// attributes makes a child run as the account, in a process group of its own: Ctrl-C
// on the terminal is for us, and we stop the server last.
func (a account) attributes() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if a.other {
		attr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid, Groups: []uint32{}}
	}
	return attr
}

// owns gives a directory and all that is in it to the account.
func (a account) owns(dir string) error {
	if !a.other {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(a.uid), int(a.gid))
	})
}

// reaches tells whether the account can get to path: /root and many home
// directories are closed to everybody else.
func (a account) reaches(path string) error {
	if !a.other {
		return nil
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err == nil {
			st, ok := info.Sys().(*syscall.Stat_t)
			mode := info.Mode().Perm()
			switch {
			case !ok:
			case st.Uid == a.uid && mode&0o100 != 0, st.Uid != a.uid && st.Gid == a.gid && mode&0o010 != 0, st.Uid != a.uid && st.Gid != a.gid && mode&0o001 != 0:
			default:
				return fmt.Errorf("%s is closed to user %s (mode %o)", dir, a.name, mode)
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}
