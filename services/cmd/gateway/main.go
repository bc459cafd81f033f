// Command gateway is the one door into the mesh: it sends requests from outside
// to the services user and order.
package main

import (
	"context"
	"os"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/mtls"
	"github.com/rollcall-mesh/rollcall/services/gateway"
	"github.com/rollcall-mesh/rollcall/services/internal/app"
)

var settings struct {
	UsersListen   app.Addr     `name:"users-listen" env:"ROLLCALL_USERS_LISTEN" default:":5000" help:"Address of a port that serves the paths of user only."`
	OrdersListen  app.Addr     `name:"orders-listen" env:"ROLLCALL_ORDERS_LISTEN" default:":5001" help:"Address of a port that serves the paths of order only."`
	StreamTimeout app.Duration `name:"stream-timeout" env:"ROLLCALL_STREAM_TIMEOUT" default:"30s" min:"10ms" max:"1h" help:"How long one piece of a body may take to come in or to go out; a stream that moves lives for ever. It replaces the read and write timeouts."`
	AnswerTimeout app.Duration `name:"answer-timeout" env:"ROLLCALL_ANSWER_TIMEOUT" default:"10s" min:"10ms" max:"1h" help:"How long a service may take from the last piece of a request to the header of its answer, all tries together; after that the answer is 504."`

	OutsideCert    string `name:"outside-cert" env:"ROLLCALL_OUTSIDE_CERT" help:"File of the certificate in PEM, followed by those between it and the root, that clients from outside are shown. With it the traffic ports speak TLS. Empty: plain text."`
	OutsideKey     string `name:"outside-key" env:"ROLLCALL_OUTSIDE_KEY" help:"File of its key in PEM."`
	OutsideCA      string `name:"outside-ca" env:"ROLLCALL_OUTSIDE_CA" help:"File of the roots in PEM that the certificates of clients from outside must come from, where they need one."`
	OutsideCallers string `name:"outside-callers" env:"ROLLCALL_OUTSIDE_CALLERS" help:"Names, with commas between, of which a client's certificate must have one; *: each certificate from the roots. Empty: anybody may call, without a certificate."`
}

func main() {
	os.Exit(app.Main(app.Spec{
		Name:         "gateway",
		Describe:     "The one door into the mesh: sends requests from outside to the services user and order.",
		Peers:        []string{"user", "order"},
		RequirePeers: true,
		Edge:         true,
		Settings:     &settings,
		Build:        build,
	}))
}

// outside returns the identity of the listeners; nil for plain text.
func outside() *mtls.Config {
	s := settings
	if s.OutsideCert == "" && s.OutsideKey == "" && s.OutsideCA == "" && s.OutsideCallers == "" {
		return nil
	}
	return &mtls.Config{CertFile: s.OutsideCert, KeyFile: s.OutsideKey, CAFile: s.OutsideCA, Callers: app.Names(s.OutsideCallers)}
}

func build(_ context.Context, r *app.Runtime) (app.Parts, error) {
	door, err := gateway.New(gateway.Config{
		Transport:     r.Transport,
		AnswerTimeout: time.Duration(settings.AnswerTimeout),
		Log:           r.Log,
	})
	if err != nil {
		return app.Parts{}, err
	}
	users := gateway.Route{Prefix: "/users", Service: "user"}
	orders := gateway.Route{Prefix: "/orders", Service: "order"}
	return app.Parts{
		TLS:     outside(),
		Handler: door.Handler(users, orders),
		More: []app.Port{
			{Addr: settings.UsersListen, Handler: door.Handler(users)},
			{Addr: settings.OrdersListen, Handler: door.Handler(orders)},
		},
		Stream: time.Duration(settings.StreamTimeout),
	}, nil
}
