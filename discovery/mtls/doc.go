// Package mtls keeps a TLS identity true to its files: roots, a certificate and
// its key, which are replaced without a restart.
//
//	id, err := mtls.Open(mtls.Config{CAFile: "ca.pem", CertFile: "order.pem", KeyFile: "order-key.pem"})
//	if err != nil {
//		return err
//	}
//	defer id.Close()
//	serving, err := id.Server()        // a *tls.Config for a listener
//	calling := id.Client("user")       // one for calls to the service user
//
// A *tls.Config that was made once goes on to use what is in the files: each
// handshake takes the certificate and the roots of that moment. Connections that
// are open stay as they are.
//
// # The files
//
// Each is read every Config.Interval and compared with what is in use: an
// in-place rewrite, a rename and a link that is switched, as Kubernetes does it,
// are all the same. What has changed counts when it was read the same twice, a
// second apart, so that a file that is being written does not. Files that can't be
// used (one is away, no PEM, the key of another certificate, a certificate whose
// time is over or has not come) change nothing: the last good ones stay in use, the
// log and the Trace say why, and the next look tries again. At the start there
// are no last good ones, so Open fails.
//
// # Who is who
//
// A client verifies that the server's certificate comes from the roots and has the
// service's name, whatever the address. A server asks for a certificate if
// Config.Callers names those that may call.
//
// An Identity is safe for any number of goroutines.
package mtls
