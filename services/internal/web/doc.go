// Package web is the outside of every service's HTTP servers: what happens to
// each request and each connection, whatever the service.
//
// A [Server] gives a request its ID, counts and logs it, turns a panic into a
// problem, refuses headers that are too large, and bounds everything in time
// and number; over its limits of connections and of requests it answers 503 at
// once rather than let callers wait. [Server.Retire] and [Server.Shutdown] take
// it out of service without losing a request. [Admin] is the other port, for
// operators: metrics, health, profiles, and what discovery knows.
//
// No answer is a false one: a request whose context has ended before its handler
// wrote anything gets none, and after a body that broke nothing more is read
// from its connection.
//
// Inside a Server the *http.Request is the same one down to the
// [http.ServeMux], which notes the pattern in it: a handler in between must not
// copy it (WithContext, StripPrefix) without handing the copy's Pattern back, or
// the route's name is lost.
package web
