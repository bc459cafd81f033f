// Package e2e tests the composed fleet: that the Compose files keep their rules, that the fleet does under
// load and failure what the docs say, and that the docs' own commands print what they show.
//
// The rules of the Compose files need no Docker:
//
//	go test ./...
//
// The rest needs Docker and a few minutes. It builds and starts a fleet of its own, under its own project name
// and on free ports, from a copy of the checkout, so that it disturbs neither the checkout nor a fleet that
// runs already; and removes it, with its volumes, at the end, on failure and on an interrupt:
//
//	ROLLCALL_E2E=1 go test -v -timeout 15m .
//	ROLLCALL_E2E=1 go test -v -timeout 15m -run 'TestFleet/OnePausedOrderFailsNoGet$' .
//
// ROLLCALL_E2E_KEEP=1 leaves the fleet running and says where it is, to look at it.
package e2e
