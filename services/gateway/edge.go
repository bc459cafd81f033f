package gateway

import (
	"net/http"
	"net/netip"
	"strings"
)

// The headers by which proxies say what they have replaced; see Config.ProxyHeaders.
const (
	// XForwarded are X-Forwarded-For, -Proto and -Host.
	XForwarded = "x-forwarded"
	// Forwarded is the header of RFC 7239.
	Forwarded = "forwarded"
)

// maxHops bounds how many trusted proxies a request may have come through.
const maxHops = 16

// edge knows which proxies stand before the gateway.
type edge struct {
	proxies []netip.Prefix
	rfc7239 bool // they write Forwarded
}

// client is who asks, as far as it is vouched for.
type client struct {
	hops  []string // addresses: the client's own, then those of the trusted proxies but for the gateway
	host  string   // what it asks for
	proto string   // http or https: how it speaks to the first of them
}

// of returns who asks. Behind a proxy that is trusted that is who the proxy names, and
// so on from the last one back to the first address that is none of theirs. What stands
// before that in a header is what a client has made up.
func (e edge) of(r *http.Request) client {
	c := client{host: r.Host, proto: "http"}
	if r.TLS != nil {
		c.proto = "https"
	}
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		c.hops = []string{"unknown"}
		return c
	}
	addr := at.Addr().Unmap()
	c.hops = []string{addr.String()}
	if !e.trusts(addr) {
		return c
	}
	said := e.said(r.Header)
	kept := 0
	for kept < min(len(said), maxHops) {
		from, ok := parseHop(said[len(said)-1-kept].from)
		if !ok {
			break
		}
		kept++
		c.hops = append([]string{from.String()}, c.hops...)
		if !e.trusts(from) {
			break
		}
	}
	if kept == 0 {
		return c
	}
	first := said[len(said)-kept]
	if proto := strings.ToLower(first.proto); proto == "http" || proto == "https" {
		c.proto = proto
	}
	if isHost(first.host) {
		c.host = first.host
	}
	return c
}

func (e edge) trusts(addr netip.Addr) bool {
	for _, network := range e.proxies {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// hop is what one proxy says: from whom it got the request, and how.
type hop struct{ from, proto, host string }

// said returns what the proxies say, in the order of the way.
func (e edge) said(h http.Header) []hop {
	if e.rfc7239 {
		return parseForwarded(strings.Join(h["Forwarded"], ","))
	}
	from, proto, host := list(h["X-Forwarded-For"]), list(h["X-Forwarded-Proto"]), list(h["X-Forwarded-Host"])
	hops := make([]hop, len(from))
	for n := range hops {
		hops[n] = hop{from[n], beside(proto, n, len(from)), beside(host, n, len(from))}
	}
	return hops
}

// beside returns the value of a list that belongs to the n-th of so many hops. A proxy
// that replaces the header, where others add to it, has one value: that is for all.
func beside(values []string, n, of int) string {
	if len(values) == 0 {
		return ""
	}
	return values[max(len(values)-(of-n), 0)]
}

// parseForwarded reads the header of RFC 7239, section 4. What is malformed ends what is
// believed: everything up to it is left out.
func parseForwarded(text string) []hop {
	var hops []hop
	for _, element := range cutAt(text, ',') {
		var h hop
		malformed := false
		for _, pair := range cutAt(element, ';') {
			name, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
			value, whole := unquote(value)
			if !ok || !whole {
				malformed = true
				break
			}
			switch strings.ToLower(name) {
			case "for":
				h.from = value
			case "proto":
				h.proto = value
			case "host":
				h.host = value
			}
		}
		if malformed {
			hops = nil
			continue
		}
		hops = append(hops, h)
	}
	return hops
}

// cutAt cuts at a separator that is not inside quotation marks.
func cutAt(text string, at byte) []string {
	var parts []string
	quoted, from := false, 0
	for n := 0; n < len(text); n++ {
		switch {
		case quoted && text[n] == '\\':
			n++
		case text[n] == '"':
			quoted = !quoted
		case text[n] == at && !quoted:
			parts = append(parts, text[from:n])
			from = n + 1
		}
	}
	return append(parts, text[from:])
}

// unquote returns what a token or a quoted-string of RFC 9110 says.
func unquote(s string) (value string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		return s, !strings.ContainsAny(s, "\"\\ \t")
	}
	var b strings.Builder
	for n := 1; n < len(s); n++ {
		switch s[n] {
		case '"':
			return b.String(), n == len(s)-1
		case '\\':
			if n++; n == len(s) {
				return "", false
			}
		}
		b.WriteByte(s[n])
	}
	return "", false
}

// parseHop reads an address, with or without a port, IPv6 in brackets or without.
func parseHop(s string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	if err != nil {
		at, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}, false
		}
		addr = at.Addr()
	}
	return addr.Unmap(), addr.Zone() == ""
}

// isHost reports whether a proxy's word can be what a client asked for: a name or an
// address with or without a port, and nothing that means something in a URL or a header.
func isHost(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for n := range len(s) {
		switch b := s[n]; {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9', strings.IndexByte(".-_:[]", b) >= 0:
		default:
			return false
		}
	}
	return true
}

// tell puts who asks into a header, in both ways there are.
func (c client) tell(h http.Header) {
	h["X-Forwarded-For"] = []string{strings.Join(c.hops, ", ")}
	h["X-Forwarded-Host"] = []string{c.host}
	h["X-Forwarded-Proto"] = []string{c.proto}
	var b strings.Builder
	for n, from := range c.hops {
		if n > 0 {
			b.WriteString(", ")
		}
		b.WriteString("for=")
		if strings.Contains(from, ":") { // RFC 7239, section 6: IPv6 in brackets, and so quoted
			from = `"[` + from + `]"`
		}
		b.WriteString(from)
		if n == 0 {
			b.WriteString(";host=" + quote(c.host) + ";proto=" + c.proto)
		}
	}
	h["Forwarded"] = []string{b.String()}
}

// escape does what RFC 9110, section 5.6.4, wants of a quoted-string.
var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// quote makes a quoted-string of RFC 9110.
func quote(s string) string { return `"` + escape.Replace(s) + `"` }
