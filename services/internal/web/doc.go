// Package web is the outside of every service's HTTP servers: what happens to
// each request and each connection, whatever the service.
//
// A [Server] gives a request its ID, counts and logs it, turns a panic into a
// problem, refuses headers that are too large, and bounds everything in time
// and number; over its limit of connections it answers 503 at once rather than
// let callers wait. [Server.Retire] and [Server.Shutdown] take it out of
// service without losing a request. [Admin] is the other port, for operators:
// metrics, health, profiles, and what discovery knows.
//
// Inside a Server the *http.Request is the same one down to the
// [http.ServeMux], which notes the pattern in it: a handler in between must not
// copy it (WithContext, StripPrefix) without handing the copy's Pattern back, or
// the route's name is lost.
package web
