// Package gateway is the one door into the mesh: it sends each request to the
// service that its path names, through discovery, and streams both ways.
//
// A request goes on as it came: method, path (escapes and all), query and body.
// What only holds for one connection is taken off, what clients may not say is
// replaced: Forwarded, X-Forwarded-* and the mesh's own Rollcall-* headers. An
// answer comes back as it is, with the ID of the instance that gave it in
// X-Served-By. A service that can't be reached is a problem that names it.
//
// A Gateway has no state but its connections; any number of requests may use
// it.
package gateway
