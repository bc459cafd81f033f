package consul

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
)

// said is a client whose every question is answered with this.
func said(t testing.TB, status int, body string) *api.Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Consul-Index", "7")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	client, closeIdle, err := Open(Config{Address: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closeIdle)
	return client
}

// reads asks each question, and touches all that an answer without an error has.
var reads = map[string]func(*api.Client) error{
	"Instances": func(c *api.Client) error {
		entries, meta, err := Instances(c, "order", nil)
		if err != nil {
			return err
		}
		_ = meta.LastIndex
		for _, e := range entries {
			for _, check := range e.Checks {
				_ = check.Status
			}
		}
		return nil
	},
	"Service": func(c *api.Client) error {
		entry, meta, err := Service(c, "order-1", nil)
		if err != nil {
			return err
		}
		_, _ = entry.Port, meta.LastContentHash
		return nil
	},
	"Services": func(c *api.Client) error {
		all, err := Services(c, "", nil)
		for _, entry := range all {
			_ = entry.Port
		}
		return err
	},
	"Checks": func(c *api.Client) error {
		all, err := Checks(c, "", nil)
		for _, check := range all {
			_ = check.Status
		}
		return err
	},
}

func TestAnswerThatCantBeReadIsAnErrorAndNeverAPanic(t *testing.T) {
	clean(t)
	for _, body := range []string{
		"", "null", "[null]", `{"order-1":null}`, `[{"Checks":[null]}]`, `[{"Checks":[{"Definition":null}]}]`,
		`{"order-1":{}}`, "<html>", `[{"Service":7}]`, `{"Port":"x"}`,
	} {
		client := said(t, http.StatusOK, body)
		for name, read := range reads {
			err := read(client)
			// Fields that are not known are left out: an entry, if an empty one.
			empty := name == "Service" && strings.HasPrefix(body, `{"order-1"`) || body == `{"order-1":{}}` && name != "Instances"
			if err == nil && !empty {
				t.Errorf("%s of %q: got no error", name, body)
			}
		}
	}
	for name, body := range map[string]string{"Instances": "[]", "Service": "{}", "Services": "{}", "Checks": "{}"} {
		if err := reads[name](said(t, http.StatusOK, body)); err != nil {
			t.Errorf("%s of %s: %v", name, body, err)
		}
	}
}

func FuzzAnswersOfTheAgent(f *testing.F) {
	for _, body := range []string{"null", "[null]", `{"a":null}`, `[{"Checks":[{"Definition":null}]}]`, `{"a":{"Type":[]}}`} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		client := said(t, http.StatusOK, body)
		for _, read := range reads {
			_ = read(client) // which must not panic
		}
	})
}

// The words of Consul 1.22.3, as it answered.
const (
	unknownService = "unknown service ID: order-1"
	unknownToWrite = `Unknown service ID "order-1". Ensure that the service ID is passed, not the service name.`
	unknownCheck   = `Unknown check ID "order-1:rollcall". Ensure that the check ID is passed, not the check name.`
)

func TestOnly404InConsulsOwnWordsMeansUnknown(t *testing.T) {
	clean(t)
	for _, c := range []struct {
		code int
		body string
		want bool
	}{
		{404, unknownService, true},
		{404, unknownToWrite, true},
		{404, unknownCheck, true},
		{500, unknownCheck, false},
		{404, "Invalid URL path: not a recognized HTTP API endpoint", false},
		{404, "<html>unknown service ID: order-1</html>", false},
		{404, "404 page not found", false},
		{404, "", false},
	} {
		_, _, err := Service(said(t, c.code, c.body), "order-1", nil)
		if err == nil || Unknown(err) != c.want {
			t.Errorf("%d %q: got %v; want unknown: %v", c.code, c.body, err, c.want)
		}
	}
	if Unknown(nil) {
		t.Error("no error means unknown")
	}
}

func TestTextThatIsNoUTF8IsNamed(t *testing.T) {
	if err := CheckText("Meta[\"owner\"]", "Zoë"); err != nil {
		t.Error(err)
	}
	if err := CheckText("Meta[\"owner\"]", "Zo\xeb"); err == nil || err.Error() != `Meta["owner"] is "Zo\xeb"; want UTF-8` {
		t.Errorf("got %v; want the field, the value and what is wanted", err)
	}
}
