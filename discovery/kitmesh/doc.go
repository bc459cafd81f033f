// Package kitmesh is the mesh in the terms of go-kit. What is here stands where
// go-kit's own parts stood, so that existing code moves over by changing
// constructors; and it need not move all the way at once.
//
// # The easiest way
//
// A set of client endpoints that takes go-kit's options is left as it is. Its
// address becomes the service's name, and its HTTP client the mesh's:
//
//	MakeClientEndpoints("http://user", kithttp.SetClient(mesh.Client()))
//
// Nothing else is needed: no Instancer, no factory, no Endpointer, no balancer and no
// lb.Retry. [Endpoint] makes one such endpoint from its parts, and checks them.
//
// # Step by step
//
//	consul.NewInstancer(client, logger, "user", tags, passingOnly)   before
//	kitmesh.NewInstancer(mesh, "user")                               after
//
// What a program gains depends on how much of go-kit's stays around it:
//
//   - [Instancer], with sd.NewEndpointer, lb.NewRoundRobin and lb.Retry kept: true
//     addresses, and no more. The set outlives a Consul that is away or was wiped,
//     draining instances leave at once, an IPv6 address can be dialled. An instance
//     that is dead or hangs gets its turn like any other until Consul has found out.
//   - [Balancer], in place of sd.NewEndpointer and lb.NewRoundRobin, under lb.Retry:
//     the choice by load and latency as well, and the outcome of each call. One that
//     fails is ejected after the first dial that is refused, 3 connections that
//     broke or waits in vain, or 5 other errors. lb.Retry calls again after any error,
//     also what may have been done; and it waits for one that hangs until its
//     time-out, which is a failed call, and proves something only if the mesh's
//     HTTP.TryTimeout (1 s) is the shorter one.
//   - [Endpoint], or any endpoint through mesh.Client(), in place of all of that: the
//     rest too. A request goes elsewhere while there is time, a second try runs
//     beside one that hangs, nothing is sent again that may have been done unless it
//     was declared, retries have a budget, deadlines travel, and an address that has
//     become another service's refuses.
//
// What had an argument has it still:
//
//   - NewInstancer's tags and passingOnly are a selection of the mesh's: in its Config
//     for all, or mesh.Select(catalog.Selection{Tags: tags, PassingOnly: true}) for one
//     that is given to NewInstancer, or whose Client is used.
//   - lb.Retry's count and time-out are those of [Retry], an endpoint.Middleware.
//   - What may be done twice is declared: by a method that is safe (GET, HEAD,
//     OPTIONS, TRACE), or by [Repeatable]. By default it is nothing else, and only
//     what never reached an instance is sent again.
//   - consul.NewRegistrar's is [NewRegistrar], which keeps the entry true.
//
// An Instancer has a goroutine, and one for each channel that is registered; Stop
// ends them. Everything in the package may be used by any number of goroutines. For
// tests, consultest has a Consul that runs inside the test.
package kitmesh
