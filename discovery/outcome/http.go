package outcome

import "net/http"

// OfStatus returns what an HTTP answer with the status is, where nothing else is
// known of it.
func OfStatus(status int) Code {
	switch status {
	case http.StatusMisdirectedRequest:
		return Misdirected
	case http.StatusTooManyRequests:
		return Busy
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return OK // it understood, and says that it can't
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return Gateway
	case http.StatusGatewayTimeout:
		return GatewayTimeout
	}
	if status < http.StatusInternalServerError {
		return OK
	}
	return Error
}
