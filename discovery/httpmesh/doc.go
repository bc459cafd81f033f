// Package httpmesh is an http.RoundTripper that sends each request to an
// instance of the service its URL names.
//
//	client := &http.Client{Transport: transport}
//	resp, err := client.Get("http://order/orders/1")
//
// The host of the URL is a service name, without a port and never looked up in
// DNS; the scheme is http. The instances come from a [catalog.Source], one of
// them is chosen by a [balancer.Balancer], and the connections to each instance
// are a pool of their own, dropped with it.
//
// # What is sent again
//
// A try that never connected is repeated on another instance, whatever the
// method; so is one of whose request nothing was written. After any other
// transport error, a timeout included, only GET, HEAD, OPTIONS and TRACE are
// repeated. An answer is final, with one exception: 421 says that the instance
// belongs to another service and has refused the request before it looked at it
// (see [Guard]), so it is repeated whatever the method. There are at most
// Config.MaxRetries more tries, inside the caller's deadline, and never on an
// instance that was tried while another is left. A body of which a byte was
// read is sent again only if the request has GetBody.
//
// # What is not
//
// Bodies stream in both directions and are neither copied nor decompressed.
// No proxy is taken from the environment. The package starts no goroutine of
// its own; those of the connections end with Shutdown or Close.
package httpmesh
