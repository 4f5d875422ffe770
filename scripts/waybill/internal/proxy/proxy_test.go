package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server answers each line with its name and the line.
func server(t *testing.T, name string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				lines := bufio.NewScanner(c)
				for lines.Scan() {
					_, _ = io.WriteString(c, name+" "+lines.Text()+"\n")
				}
			}()
		}
	}()
	return l.Addr().String()
}

func listen(t *testing.T, callees ...string) *Proxy {
	t.Helper()
	p, err := Listen("a>b", "127.0.0.1:0", callees)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func ask(c net.Conn, line string) (string, error) {
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return "", err
	}
	return bufio.NewReader(c).ReadString('\n')
}

func TestConnectionsAreSpreadAndFailOver(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := gone.Addr().String()
	gone.Close()
	p := listen(t, server(t, "one"), dead, server(t, "two"))
	seen := map[string]int{}
	for range 6 {
		answer, err := ask(dial(t, p), "hi")
		if err != nil {
			t.Fatal(err)
		}
		seen[answer]++
	}
	if seen["one hi\n"] != 2 || seen["two hi\n"] != 4 {
		t.Errorf("connections went to %v; the dead one's belong to its successor", seen)
	}
}

func TestNobodyBehind(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	l.Close()
	c, err := net.Dial("tcp", listen(t, dead).Addr)
	if err != nil {
		return // reset before the connection was known to be made
	}
	defer c.Close()
	if answer, err := ask(c, "hi"); err == nil {
		t.Errorf("answered %q", answer)
	}
}

func TestDownRefusesAndResets(t *testing.T) {
	p := listen(t, server(t, "s"))
	c := dial(t, p)
	if _, err := ask(c, "hi"); err != nil {
		t.Fatal(err)
	}
	if err := p.Apply("cut", Toxic{Down: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("who was connected sees %v, not a reset", err)
	}
	if _, err := net.Dial("tcp", p.Addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("who comes sees %v, not a refusal", err)
	}
	if err := p.Remove("cut"); err != nil {
		t.Fatal(err)
	}
	if answer, err := ask(dial(t, p), "hi"); err != nil || answer != "s hi\n" {
		t.Errorf("healed, it answers %q %v", answer, err)
	}
}

// Toxics overlap; one that ends takes only itself away.
func TestOverlappingToxics(t *testing.T) {
	p := listen(t, server(t, "s"))
	for _, id := range []string{"a", "b"} {
		if err := p.Apply(id, Toxic{Down: true}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Remove("a"); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", p.Addr); err == nil {
		t.Error("it listens although b is in force")
	}
	if err := p.Heal(); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(dial(t, p), "hi"); err != nil {
		t.Error(err)
	}
}

func TestHalfCloseArrives(t *testing.T) {
	p := listen(t, server(t, "s"))
	c := dial(t, p)
	if _, err := io.WriteString(c, "last\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if all, err := io.ReadAll(c); err != nil || string(all) != "s last\n" {
		t.Errorf("%q %v", all, err)
	}
}
