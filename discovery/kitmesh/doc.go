// Package kitmesh is the mesh in the terms of go-kit: a [Registrar] that keeps
// an instance's entry true, and an [Endpoint] that calls a service by its name.
//
// Both stand where go-kit's own parts stood, so that existing code moves over
// by changing constructors:
//
//	registrar := consul.NewRegistrar(client, registration, logger)   // before
//	registrar := kitmesh.NewRegistrar(mesh, registration, log)       // after
//
//	call := lb.Retry(3, time.Second, lb.NewRoundRobin(sd.NewEndpointer(instancer, factory, logger)))
//	call, err := kitmesh.Endpoint(mesh.Client(), "GET", "user", encode, decode)
//
// What was written around them goes away: the mesh watches the registry,
// chooses the instance, tries again where that is safe, and learns from the
// outcome. The package adds no goroutine of its own. Everything in it may be
// used by any number of goroutines. For tests, consultest has a Consul that
// runs inside the test.
package kitmesh
