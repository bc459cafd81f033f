package catalog

import "slices"

// The protocols that an entry can say it speaks, by a tag of the same name. A
// service with several ports has one entry for each, told apart by these tags,
// so that DNS (grpc.order.service.consul), Prometheus and Traefik can tell them
// apart as well.
const (
	HTTP = "http"
	GRPC = "grpc"
)

// MetaTLS is the Meta key that says, with the value "true", that an instance
// speaks TLS on its port. Without it it speaks plain text.
const MetaTLS = "rollcall-tls"

// Speaks reports whether an instance offers a protocol, HTTP or GRPC. An entry
// without a tag of either speaks HTTP: that is what entries of others are.
func (i Instance) Speaks(protocol string) bool {
	if slices.Contains(i.Tags, protocol) {
		return true
	}
	return protocol == HTTP && !slices.Contains(i.Tags, GRPC)
}

// Protocol is what an instance speaks, in one word for pages: "http", "grpc", or
// "http,grpc" for both on one port.
func (i Instance) Protocol() string {
	switch {
	case !i.Speaks(GRPC):
		return HTTP
	case i.Speaks(HTTP):
		return HTTP + "," + GRPC
	}
	return GRPC
}

// TLS reports whether an instance speaks TLS; see MetaTLS.
func (i Instance) TLS() bool { return i.Meta[MetaTLS] == "true" }
