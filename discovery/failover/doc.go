// Package failover asks another datacenter when there is no one left to ask in
// this one.
//
// [New] makes a [Source], which is a catalog.Source around one for this datacenter
// and one for each other that may stand in, in the order in which they do. The
// order in which instances are asked becomes: those of this datacenter, in the
// catalog or missing from it; then those of the first other one that has an instance
// ready; then the critical ones of this one, which is panic mode.
//
// While an instance is ready here, those of the other datacenter are the set's
// reserve (catalog.Instance.Reserve): a balancer gives them a request only if each
// ready instance here has failed it. When none is ready here they are in use at
// once. When one is ready again it takes its share at once; the other datacenter
// goes back into reserve when this one has had a ready instance for
// Config.Settle without a break, so that a datacenter that flaps does not throw all
// of its load around.
//
// Another datacenter's set counts only while its Source gives it: give that a bound
// of staleness (watch.Config.StaleFor), for old addresses far away are worth little.
//
// A Source has a goroutine for each service in use and datacenter, which end when
// their own sources follow the service no more, and with Close. It asks nothing
// itself.
package failover
