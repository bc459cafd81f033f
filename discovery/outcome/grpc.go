package outcome

// OfGRPC returns what an answer with gRPC's status code is, where nothing else is known
// of it.
func OfGRPC(status uint32) Code {
	const (
		canceled, unknown, deadlineExceeded, resourceExhausted = 1, 2, 4, 8
		internal, unavailable, dataLoss                        = 13, 14, 15
	)
	switch status {
	case unavailable:
		return Gateway
	case resourceExhausted:
		return Busy
	case deadlineExceeded:
		return GatewayTimeout
	case unknown, internal, dataLoss, canceled:
		return Error
	}
	return OK // any other answer
}
