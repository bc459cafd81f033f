// Package routing says which service a request at the gateway is for: by routes that
// are pinned in its settings, and by routes that services claim in the catalog.
//
// A service claims routes with the tag [Tag] and in its Meta under [MetaKey], see
// [ParseClaims]. [Learner] follows the catalog's list of services, and of those that
// are marked the instances; what comes of it is an immutable [Table]. The longest
// prefix wins. No claim gets what a pinned route has. Where two services claim the
// same, the owner stands in Consul's KV, written by check-and-set, so that all gateways
// agree and a newcomer takes nothing from the one that was there; without the right to
// write there it is the service whose name sorts first.
//
// While Consul is away the last table holds. A route whose service takes back its
// claim is gone at once; one whose last instance left the catalog stays for ten
// seconds, without an instance, so that a restart is no 404.
//
// A Table may be used by any number of goroutines, and so may a Learner.
package routing
