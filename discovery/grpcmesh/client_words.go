package grpcmesh

// ServiceKey is the metadata that names the service which a call is meant for;
// HTTP's httpmesh.ServiceHeader, in gRPC's spelling.
const ServiceKey = "rollcall-service"

// A status of the mesh has an ErrorInfo of this domain, whose reason says what
// the code alone does not.
const (
	errorDomain = "rollcall"
	// reasonWrongService, with UNAVAILABLE: the call is meant for another service
	// than the one at this address. Nothing was done.
	reasonWrongService = "WRONG_SERVICE"
	// reasonDownstream, with UNAVAILABLE: another service was at fault, which was
	// tried as often as it could be.
	reasonDownstream = "DOWNSTREAM"
)

// pushback is the trailer that asks for a pause before another try (gRFC A6).
const pushback = "grpc-retry-pushback-ms"
