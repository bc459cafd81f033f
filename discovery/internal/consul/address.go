package consul

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"
)

// address is where an agent listens.
type address struct {
	scheme   string // http or https
	host     string // as it was written, for the Host header; empty for a Unix socket
	hostPort string // with its port
	prefix   string // of every path, without a slash at its end
	socket   string // path of a Unix socket; empty for TCP
}

// String returns the address as an operator may write it.
func (a address) String() string {
	if a.socket != "" {
		return "unix://" + a.socket
	}
	return a.scheme + "://" + a.host + a.prefix
}

// parseAddress understands what CONSUL_HTTP_ADDR may hold. The error names the
// setting that the value came from.
func parseAddress(field, value string) (address, error) {
	bad := func(why string) (address, error) {
		return address{}, fmt.Errorf("consul: %s is %q (%s); want host:port, http://host:port, https://host:port or unix:///path", field, value, why)
	}
	scheme, rest, whole := strings.Cut(value, "://")
	if !whole {
		scheme, rest = "http", value
	}
	switch scheme = strings.ToLower(scheme); scheme {
	case "unix":
		if rest == "" {
			return bad("no path")
		}
		return address{scheme: "http", socket: rest}, nil
	case "http", "https":
	default:
		return bad("unknown scheme " + scheme)
	}
	// CONSUL_HTTP_SSL is heeded where the address does not say https.
	if secure, _ := strconv.ParseBool(os.Getenv(api.HTTPSSLEnvName)); secure {
		scheme = "https"
	}
	u, err := url.Parse(scheme + "://" + rest)
	if err != nil {
		return bad("not an address")
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return bad("has more than an address")
	}
	if u.Hostname() == "" || strings.ContainsAny(u.Hostname(), " \t") {
		return bad("no host")
	}
	if u.RawPath != "" {
		return bad("the path needs escapes, which the API client does not keep")
	}
	port := u.Port()
	switch {
	case port != "":
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return bad("port is not 1 to 65535")
		}
	case !whole || strings.HasSuffix(u.Host, ":"):
		return bad("no port")
	case scheme == "https":
		port = "443"
	default:
		port = "80"
	}
	return address{
		scheme:   scheme,
		host:     u.Host,
		hostPort: net.JoinHostPort(u.Hostname(), port),
		prefix:   strings.TrimRight(u.Path, "/"),
	}, nil
}
