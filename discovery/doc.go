// Package discovery is the front door: [Open] joins the mesh. It wires the
// rooms together and holds no algorithm.
//
//	mesh, err := discovery.Open(ctx, discovery.Config{}) // Consul at CONSUL_HTTP_ADDR
//	if err != nil {
//		return err
//	}
//	defer mesh.Close()
//	resp, err := mesh.Client().Get("http://order/orders/1") // the host is a service name
//
// A [Mesh] finds and calls services ([Mesh.Client], [Mesh.RoundTripper],
// [Mesh.Latest]), registers instances ([Mesh.Register]) and tells what it knows
// ([Mesh.Status]). It is safe for any number of goroutines.
//
// Consul may be away at any time. Requests go to the last set of instances that
// was known; before the first answer about a service they wait for
// [Config.InitialFetchTimeout], and the log says at once what is wrong.
// Registrations are made when Consul answers.
//
// In a test, [Config.Source] takes the place of Consul (catalog.Fixed is a set
// that is given), or package consultest is one.
//
// The rooms, each of use on its own: catalog (the words), watch (keeps
// snapshots true to Consul), registration (keeps an instance's entry in Consul
// true), failover (other datacenters stand in), outcome (how a try ended, and what
// follows from that), balancer (chooses), outlier (ejects instances that fail),
// httpmesh (sends), grpcmesh (gRPC clients and servers), kitmesh (the go-kit face),
// mtls (a TLS identity true to its files), consultest (a Consul inside a test).
package discovery
