package httpmesh

// ReasonHeader of an answer says why an instance could not serve, where the
// status alone does not: ReasonOverload or ReasonDownstream. It is a word
// between services; a gateway takes it off.
const ReasonHeader = "Rollcall-Reason"

const (
	// ReasonOverload on a 503 says that the instance had too much to do and shed
	// the request before any work was done. Such a request may be sent to
	// another instance whatever its method; it tells of load, not of a fault.
	ReasonOverload = "overload"
	// ReasonDownstream on a 502, 503 or 504 says that another service was at
	// fault, which was tried as often as it could be. The hop above does not
	// try again (tries × tries), nor hold it against the instance.
	ReasonDownstream = "downstream"
)
