package consul

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// address is where an agent listens.
type address struct {
	api      string // as the API client wants it
	socket   string // path of a Unix socket; empty for TCP
	hostPort string // for TCP
}

// parseAddress understands what CONSUL_HTTP_ADDR may hold. The error names the
// setting that the value came from.
func parseAddress(field, value string) (address, error) {
	bad := func(why string) (address, error) {
		return address{}, fmt.Errorf("consul: %s is %q (%s); want host:port, http://host:port, https://host:port or unix:///path", field, value, why)
	}
	if path, ok := strings.CutPrefix(value, "unix://"); ok {
		if path == "" {
			return bad("no path")
		}
		// The API client would take a transport of its own for a socket,
		// without keep-alive and limits: so it sees a plain address, and our
		// dialer knows the path.
		return address{api: "localhost", socket: path}, nil
	}
	whole := value
	if !strings.Contains(value, "://") {
		whole = "http://" + value
	}
	u, err := url.Parse(whole)
	if err != nil {
		return bad("not an address")
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return bad("unknown scheme " + u.Scheme)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return bad("has more than an address")
	}
	if u.Hostname() == "" || strings.ContainsAny(u.Hostname(), " \t") {
		return bad("no host")
	}
	if u.Port() == "" {
		return bad("no port")
	}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || port == 0 {
		return bad("port is not 1 to 65535")
	}
	return address{api: value, hostPort: u.Host}, nil
}
