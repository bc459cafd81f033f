package registration

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

// TCP is the protocol of a Check that is content with a connection.
const TCP = "tcp"

// Check is one that Consul's agent runs on the instance: it finds hung processes
// and dead networks. Two failures in a row make it critical. The zero value asks
// Config.Port in its own protocol: HTTP for "/", or gRPC for its health.
type Check struct {
	// Name of the check, another for each of an instance: 1 to 64 letters, digits,
	// '-', '.' and '_'. Its ID in Consul is <Config.ID>:<Name>. Empty means "probe".
	Name string
	// Host and Port to ask. Empty means the advertised host; 0 means Config.Port,
	// whose Protocol and TLS are then taken over as well.
	Host string
	Port int
	// Protocol is catalog.HTTP, which passes by a status of 2xx and warns by 429;
	// catalog.GRPC, the health service of gRPC; or TCP. Empty means HTTP.
	Protocol string
	// Path of HTTP with its query; empty means "/". Of gRPC, the name of the service
	// whose health is asked for; empty means the whole server.
	Path string
	// Method, Header and Body of HTTP. An empty Method means GET.
	Method string
	Header http.Header
	Body   string
	// TLS asks over TLS. TLSServerName is the name that the certificate must have;
	// empty means Host. TLSSkipVerify takes any certificate.
	TLS           bool
	TLSServerName string
	TLSSkipVerify bool
	// Interval between two runs: 0 means 5s, or Timeout if that is longer. Timeout of
	// one: 0 means 2s, or Interval if that is shorter. Shorter finds the dead sooner
	// and costs a request each.
	Interval, Timeout time.Duration
}

const (
	// failuresBeforeCritical is how many runs of a check in a row must fail.
	failuresBeforeCritical = 2
	maxNameBytes           = 64
)

// filled returns the check with zero values replaced by what they mean.
func (k Check) filled(c *Config) Check {
	k.Name = cmp.Or(k.Name, "probe")
	k.Header = k.Header.Clone()
	if k.Port == 0 {
		k.Port, k.TLS = c.Port, k.TLS || c.TLS
		k.Protocol = cmp.Or(k.Protocol, c.Protocol)
	}
	if k.Protocol = cmp.Or(k.Protocol, catalog.HTTP); k.Protocol == catalog.HTTP {
		k.Path = cmp.Or(k.Path, "/")
	}
	k.Interval = cmp.Or(k.Interval, max(5*time.Second, k.Timeout))
	k.Timeout = cmp.Or(k.Timeout, min(2*time.Second, k.Interval))
	return k
}

// validate says what is wrong with a filled check, which is called field.
func (k Check) validate(field string) error {
	isHTTP, isGRPC := k.Protocol == catalog.HTTP, k.Protocol == catalog.GRPC
	_, noURL := url.Parse(k.Path)
	if err := firstBroken(field+".", []rule{
		{wellNamed(k.Name, maxNameBytes), "Name", strconv.Quote(k.Name), fmt.Sprintf("1 to %d %s", maxNameBytes, charset)},
		{k.Name != heartbeatName, "Name", strconv.Quote(k.Name), "another, since that one is rollcall's"},
		{isHTTP || isGRPC || k.Protocol == TCP, "Protocol", strconv.Quote(k.Protocol), `"http", "grpc" or "tcp"`},
		{isPort(k.Port), "Port", k.Port, wantPort},
		{!isHTTP || strings.HasPrefix(k.Path, "/") && noURL == nil, "Path", strconv.Quote(k.Path), "a path of a URL that begins with /"},
		{k.Path == "" || k.Protocol != TCP, "Path", strconv.Quote(k.Path), "none for TCP"},
		{isHTTP || k.Method == "" && k.Header == nil && k.Body == "", "Method, Header or Body", "set", "them for HTTP alone"},
		{strings.Trim(k.Method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "", "Method", strconv.Quote(k.Method), "a method of HTTP, in capital letters"},
		{k.TLS || k.TLSServerName == "" && !k.TLSSkipVerify, "TLSServerName or TLSSkipVerify", "set", "TLS set as well"},
		{k.Interval > 0, "Interval", k.Interval, wantDuration},
		{k.Timeout > 0, "Timeout", k.Timeout, wantDuration},
		{k.Timeout <= k.Interval, "Timeout", k.Timeout, fmt.Sprintf("at most Interval (%v)", k.Interval)},
	}); err != nil {
		return err
	}
	if k.Host != "" {
		if err := advertisable(k.Host); err != nil {
			return fmt.Errorf("registration: %s.Host is %q; want %w", field, k.Host, err)
		}
	}
	return k.validateTexts(field)
}

func (k Check) validateTexts(field string) error {
	texts := [][2]string{{"Path", k.Path}, {"Body", k.Body}, {"TLSServerName", k.TLSServerName}}
	for key, values := range k.Header {
		if !wellNamed(key, maxNameBytes) {
			return fmt.Errorf("registration: %s.Header has the key %q; want 1 to %d %s", field, key, maxNameBytes, charset)
		}
		for _, v := range values {
			if strings.ContainsAny(v, "\r\n\x00") {
				return fmt.Errorf("registration: %s.Header[%q] is %q; want one line", field, key, v)
			}
			texts = append(texts, [2]string{fmt.Sprintf("Header[%q]", key), v})
		}
	}
	for _, text := range texts {
		if err := consul.CheckText(field+"."+text[0], text[1]); err != nil {
			return fmt.Errorf("registration: %w", err)
		}
	}
	return nil
}

// definition is the check as Consul's agent is to run it.
func (k Check) definition(host string) *api.AgentServiceCheck {
	d := &api.AgentServiceCheck{
		Name:                   k.Name,
		Interval:               k.Interval.String(),
		Timeout:                k.Timeout.String(),
		FailuresBeforeCritical: failuresBeforeCritical,
		TLSServerName:          k.TLSServerName,
		TLSSkipVerify:          k.TLSSkipVerify,
	}
	addr := net.JoinHostPort(cmp.Or(k.Host, host), strconv.Itoa(k.Port))
	switch k.Protocol {
	case TCP:
		d.TCP, d.TCPUseTLS = addr, k.TLS
	case catalog.GRPC:
		d.GRPC, d.GRPCUseTLS = addr, k.TLS
		if k.Path != "" {
			d.GRPC += "/" + k.Path
		}
	default:
		d.HTTP, d.Method, d.Header, d.Body = "http://"+addr+k.Path, k.Method, k.Header, k.Body
		if k.TLS {
			d.HTTP = "https://" + addr + k.Path
		}
	}
	return d
}
