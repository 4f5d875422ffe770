package plan

import "testing"

func FuzzPorts(f *testing.F) {
	f.Add("gateway=8080")
	f.Add("gateway=")
	f.Add("nobody=1")
	f.Add("kafka=65536")
	f.Add("order-admin=-1")
	f.Fuzz(func(t *testing.T, override string) {
		p := DefaultPorts()
		before := len(p)
		if p.Set([]string{override}) != nil {
			return
		}
		for name, port := range p {
			if port < 1 || port > 65535 {
				t.Fatalf("%q: %s on port %d", override, name, port)
			}
		}
		if len(p) != before {
			t.Fatalf("%q makes a listener that nobody opens", override)
		}
	})
}
