package record

import (
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/ring"
)

func TestParse(t *testing.T) {
	const a = `"id":"a","addr":"10.0.0.1:7072"`
	const all = `,"hash_key":"k","zone":"z 1","version":"v","started":"2026-01-02T03:04:05Z","ring":{"min":1024,"max":4096},"leaving":true`
	long := strings.Repeat("a", maxID+1)
	for name, tc := range map[string]struct {
		id, value string
		want      Reason // "" when it is valid
	}{
		"least":                      {"a", `{` + a + `}`, ""},
		"all":                        {"a", `{` + a + all + `}`, ""},
		"field of a newer version":   {"a", `{` + a + `,"weight":3}`, ""},
		"name":                       {"a", `{"id":"a","addr":"pod-0.cache:7072"}`, Invalid},
		"link-local":                 {"a", `{"id":"a","addr":"169.254.169.254:80"}`, Invalid},
		"IPv4-mapped link-local":     {"a", `{"id":"a","addr":"[::ffff:169.254.169.254]:80"}`, Invalid},
		"broadcast":                  {"a", `{"id":"a","addr":"255.255.255.255:7072"}`, Invalid},
		"IPv4-mapped":                {"a", `{"id":"a","addr":"[::ffff:10.0.0.1]:7072"}`, ""},
		"loopback":                   {"a", `{"id":"a","addr":"127.0.0.1:7072"}`, ""},
		"IPv6":                       {"a", `{"id":"a","addr":"[2001:db8::1]:7072"}`, ""},
		"negative ring size":         {"a", `{` + a + `,"ring":{"min":-1,"max":4096}}`, Malformed},
		"empty":                      {"a", ``, Malformed},
		"null byte":                  {"a", "\x00", Malformed},
		"half":                       {"a", `{` + a, Malformed},
		"two":                        {"a", `{` + a + `}{` + a + `}`, Malformed},
		"array":                      {"a", `[]`, Malformed},
		"number for a string":        {"a", `{"id":"a","addr":1}`, Malformed},
		"no date":                    {"a", `{` + a + `,"started":"` + strings.Repeat("x", 9000) + `"}`, Malformed},
		"not UTF-8":                  {"a", "{" + a + ",\"zone\":\"\xff\"}", Malformed},
		"deep":                       {"a", strings.Repeat("[", 60000), Malformed},
		"longest":                    {"a", `{` + a + `}` + strings.Repeat(" ", maxRecord-len(a)-2), ""},
		"too long":                   {"a", `{` + a + `}` + strings.Repeat(" ", maxRecord-len(a)-1), Oversized},
		"null":                       {"a", `null`, Invalid},
		"other id":                   {"b", `{` + a + `}`, Invalid},
		"empty id":                   {"", `{"id":"","addr":"10.0.0.1:7072"}`, Invalid},
		"id with a slash":            {"a/b", `{"id":"a/b","addr":"10.0.0.1:7072"}`, Invalid},
		"id with a control byte":     {"a\n", `{"id":"a\n","addr":"10.0.0.1:7072"}`, Invalid},
		"id with a space":            {"a b", `{"id":"a b","addr":"10.0.0.1:7072"}`, Invalid},
		"long id":                    {long, `{"id":"` + long + `","addr":"10.0.0.1:7072"}`, Invalid},
		"hash key with a line":       {"a", `{` + a + `,"hash_key":"k\r\n"}`, Invalid},
		"long hash key":              {"a", `{` + a + `,"hash_key":"` + strings.Repeat("k", 513) + `"}`, Invalid},
		"zone that clears a screen":  {"a", `{` + a + `,"zone":"\u001b[2J"}`, Invalid},
		"version that turns round":   {"a", `{` + a + `,"version":"\u202e"}`, Invalid},
		"started in the year 0 - 1s": {"a", `{` + a + `,"started":"0000-01-01T00:00:00+01:00"}`, Invalid},
		"no addr":                    {"a", `{"id":"a"}`, Invalid},
		"no port":                    {"a", `{"id":"a","addr":"10.0.0.1"}`, Invalid},
		"port 0":                     {"a", `{"id":"a","addr":"10.0.0.1:0"}`, Invalid},
		"port 65536":                 {"a", `{"id":"a","addr":"10.0.0.1:65536"}`, Invalid},
		"port by name":               {"a", `{"id":"a","addr":"10.0.0.1:http"}`, Invalid},
		"no host":                    {"a", `{"id":"a","addr":":7072"}`, Invalid},
		"any address":                {"a", `{"id":"a","addr":"0.0.0.0:7072"}`, Invalid},
		"any IPv6 address":           {"a", `{"id":"a","addr":"[::]:7072"}`, Invalid},
		"multicast":                  {"a", `{"id":"a","addr":"224.0.0.1:7072"}`, Invalid},
		"zone of an interface":       {"a", `{"id":"a","addr":"[fe80::1%eth0]:7072"}`, Invalid},
		"300.1.2.3":                  {"a", `{"id":"a","addr":"300.1.2.3:7072"}`, Invalid},
		"host with a slash":          {"a", `{"id":"a","addr":"unix:///x:7072"}`, Invalid},
		"host with a control byte":   {"a", `{"id":"a","addr":"a\u0000b:7072"}`, Invalid},
		"host with an empty label":   {"a", `{"id":"a","addr":"a..b:7072"}`, Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			m, refused := parse(tc.id, []byte(tc.value))
			switch {
			case tc.want == "" && refused != nil:
				t.Errorf("got Rejection %v, want none", refused)
			case tc.want == "" && m.ID != tc.id:
				t.Errorf("got member %+v", m)
			case tc.want != "" && refused == nil:
				t.Errorf("got member %+v, want a rejection", m)
			case tc.want != "" && refused.Reason != tc.want:
				t.Errorf("%v, want %s", refused, tc.want)
			case tc.want != "" && len(refused.Error()) > 2000:
				t.Errorf("the error has %d bytes", len(refused.Error()))
			}
		})
	}
}

func TestEqualTimesInDifferentZonesAreEqualRecords(t *testing.T) {
	utc, _ := parse("a", []byte(`{"id":"a","addr":"10.0.0.1:1","started":"2026-01-02T03:04:05Z"}`))
	cet, _ := parse("a", []byte(`{"id":"a","addr":"10.0.0.1:1","started":"2026-01-02T04:04:05+01:00"}`))
	if utc != cet {
		t.Errorf("%v differs from %v", utc, cet)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("a", []byte(`{"id":"a","addr":"10.0.0.1:7072"}`))
	f.Add("a", []byte(`{"id":"a","hash_key":"k","addr":"[2001:db8::1]:7072","zone":"z","version":"v",`+
		`"started":"2026-01-02T03:04:05.6Z","leaving":true}`))
	f.Add("a", []byte(`{"id":"a","addr":"localhost:1","started":"9999-12-31T23:59:59-23:59"}`))
	f.Add("a", []byte(`{"id":"a","addr":"\u202e:1"}`))
	f.Add("", []byte(`null`))
	f.Add("a/b", []byte{0xff, 0})
	f.Fuzz(func(t *testing.T, id string, value []byte) {
		m, refused := parse(id, value)
		if refused != nil {
			if strings.ContainsFunc(refused.Error(), func(c rune) bool { return c < ' ' }) {
				t.Errorf("control characters in %q", refused)
			}
			return
		}
		if _, err := ring.New([]ring.Member{m}, ring.Size{}); err != nil {
			t.Errorf("an accepted member cannot be on a ring: %v", err)
		}
		full, _, err := Encode(m)
		if err != nil {
			t.Fatalf("encode an accepted member: %v", err)
		}
		if again, refused := parse(id, []byte(full)); refused != nil || again != m {
			t.Errorf("%+v became %+v, %v", m, again, refused)
		}
	})
}

func TestStockFormat(t *testing.T) {
	_, stock, err := Encode(ring.Member{ID: "a", Addr: "10.0.0.1:7072"})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"Op":0,"Addr":"10.0.0.1:7072","Metadata":{"hash_key":"10.0.0.1:7072"}}`
	if stock != want {
		t.Errorf("got %s, want %s", stock, want)
	}
}

func FuzzParseSlot(f *testing.F) {
	f.Add([]byte(`{"id":"a","addr":"10.0.0.1:7072"}`))
	f.Add([]byte(`{"id":"","addr":"x"}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		s, err := ParseSlot(value)
		if err != nil {
			return
		}
		text, err := EncodeSlot(s)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseSlot([]byte(text)); err != nil || again != s {
			t.Errorf("got %+v, %v from %s; want %+v", again, err, text, s)
		}
	})
}
