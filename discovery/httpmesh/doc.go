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
// Whatever the method, on another instance: a try that never connected, one of
// whose request nothing was written, one answered 421 (the instance belongs to
// another service and has not looked at the request, see [Guard]), and one that
// was shed (503 with [ReasonOverload]).
//
// If it may be done twice, that is GET, HEAD, OPTIONS, TRACE and whatever has an
// Idempotency-Key: after any other transport error, TryTimeout, and the answers
// 429, 502 and 503. Not if the answer says that another service is to blame
// ([ReasonDownstream]): that one was tried. Any other answer is final.
//
// There are at most Config.MaxRetries more tries, within Config.Budget and the
// caller's deadline, and never on an instance that was tried while another is
// left, an ejected or critical one included. The only instance is tried again after a short
// pause, or when its Retry-After says so if that is within a second. A body of
// which a byte was read is sent again only if the request has GetBody.
//
// # What is not
//
// Bodies stream in both directions and are neither copied nor decompressed.
// No proxy is taken from the environment. A goroutine for each service in use
// closes the connections to instances that leave; it ends with Shutdown or Close,
// as those of the connections do.
package httpmesh
