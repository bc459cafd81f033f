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
// [Mesh.Latest]) and registers instances ([Mesh.Register]). It is safe for any
// number of goroutines. Consul may be away at any time, at the start too:
// requests go to the last set of instances that was known, and registrations
// are made when it answers.
//
// The rooms, each of use on its own: catalog (the words), watch (keeps
// snapshots true to Consul), registration (one instance's life in Consul),
// balancer (chooses), outlier (ejects those that fail), httpmesh (sends), kitmesh (the go-kit face), consultest (a
// Consul inside a test).
package discovery
