// Package httpmesh is an http.RoundTripper that sends each request to an
// instance of the service its URL names.
//
//	client := &http.Client{Transport: transport}
//	resp, err := client.Get("http://order/orders/1")
//
// The host of the URL is a service name, without a port or a dot and never looked up
// in DNS; hosts in Config.Outside alone are called as net/http does. The instances come
// from a [catalog.Source], one of
// them is chosen by a [balancer.Balancer], and the connections to each instance
// are a pool of their own, dropped with it.
//
// # What is sent again
//
// How a try ended is an [outcome.Code], and its row of the table says whether the
// request is tried again: always, whatever the method, if it was not served (the
// dial failed, nothing was written, 421, a 503 with [ReasonOverload]); if it may be
// done twice, that is GET, HEAD, OPTIONS, TRACE and whatever has an
// Idempotency-Key, after any other transport error, and the answers 429, 502 and
// 503. Not if the answer says that another service is to blame
// ([ReasonDownstream]): that one was tried. Any other answer is final.
//
// A request is sent 1 + Config.MaxRetries times at most, or as [WithMaxTries] says,
// dials that are refused at once aside, within Config.Budget and the caller's deadline, and never to an
// instance that was tried while another is left, an ejected or critical one
// included. The only instance is tried again after a short pause, or when its
// Retry-After says so if that is within a second. A body of which a byte was read
// is sent again only if the request has GetBody.
//
// A safe request that has had no headers for Config.TryTimeout is tried at another
// instance beside the first; the first answer that is no failure is used.
//
// # TLS and HTTP/2
//
// An https URL goes to the instances whose entries say that they speak TLS
// ([catalog.Instance.TLS]), an http URL to the others, so that a service may have
// both while it changes over; each kind has its own balancer. If none fits, nothing
// is sent, and the outcome is WrongScheme. The certificate must have the service's
// name, whatever the address ([Config.TLS]); if it is not believed the try was
// Untrusted, and another instance is asked.
//
// Instances that offer HTTP/2 get it: requests share a connection, up to
// [Config.MaxStreams] or what the instance allows, and then take another. What the
// instance refused (REFUSED_STREAM) or left out when it closed (GOAWAY) was not
// sent, and is sent again whatever its method; a body that can be read once
// (no GetBody) must not have been begun. Requests that ask for another protocol, as
// WebSocket does, go over HTTP/1.1.
//
// # gRPC
//
// A request whose content type is gRPC's goes to the instances of [Config.GRPC], over
// HTTP/2 with or without TLS. Its status is its outcome, in the header or the trailer: it is
// tried again if the instance shed it, or is another service's (WRONG_SERVICE), and with an
// Idempotency-Key after UNAVAILABLE and a broken connection. Its body need not have GetBody
// for that, if it was sent to its end and had 64 KiB at most. No call is tried again
// for its silence: it may be a stream. Its grpc-timeout goes on, reduced; to end the call
// then is for the caller, by a context.
//
// # For servers
//
// [RequireService] refuses requests that are meant for another service, [Deadline] ends those
// whose sender waits no longer. Both are of use without a Transport:
//
//	server.Handler = httpmesh.RequireService("order", httpmesh.Deadline(handler))
//
// # What it does not do
//
// Bodies stream in both directions and are neither copied nor decompressed.
// No proxy is taken from the environment. A goroutine for each service in use
// closes the connections to instances that leave; it ends with Shutdown or Close,
// as those of the connections do.
package httpmesh
