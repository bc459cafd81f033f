// Package connect is a Connect service in the mesh. Connect's unary calls are plain
// HTTP/1.1, so nothing of it knows rollcall: [Handler] is served as any handler is,
// and [NewClient] sends with the mesh's client.
package connect

import (
	"context"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The procedures, as protoc-gen-connect-go would name them.
const (
	GreetProcedure = "/greet.v1.GreetService/Greet"
	CountProcedure = "/greet.v1.GreetService/Count"
)

// greetings are the options of both sides. A method that says it has no side effects
// goes by GET: then the mesh may ask another instance, as for any GET. All others
// are POST, which is sent again only if it never was sent, or has an
// Idempotency-Key among its headers.
var greetings = connect.WithIdempotency(connect.IdempotencyNoSideEffects)

// Handler serves Greet, and Count, a stream.
func Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(GreetProcedure, connect.NewUnaryHandler(GreetProcedure,
		func(_ context.Context, r *connect.Request[wrapperspb.StringValue]) (*connect.Response[wrapperspb.StringValue], error) {
			return connect.NewResponse(wrapperspb.String("Hello, " + r.Msg.GetValue() + "!")), nil
		}, greetings))
	mux.Handle(CountProcedure, connect.NewServerStreamHandler(CountProcedure,
		func(_ context.Context, r *connect.Request[wrapperspb.Int32Value], stream *connect.ServerStream[wrapperspb.Int32Value]) error {
			for n := range r.Msg.GetValue() {
				if err := stream.Send(wrapperspb.Int32(n + 1)); err != nil {
					return err
				}
			}
			return nil
		}))
	return mux
}

// Client calls the service by its name in the mesh.
type Client struct {
	Greet *connect.Client[wrapperspb.StringValue, wrapperspb.StringValue]
	Count *connect.Client[wrapperspb.Int32Value, wrapperspb.Int32Value]
}

// NewClient returns a client that sends with the mesh's, (*discovery.Mesh).Client.
func NewClient(mesh *http.Client) Client {
	return Client{
		Greet: connect.NewClient[wrapperspb.StringValue, wrapperspb.StringValue](mesh, "http://greeter"+GreetProcedure, greetings, connect.WithHTTPGet()),
		Count: connect.NewClient[wrapperspb.Int32Value, wrapperspb.Int32Value](mesh, "http://greeter"+CountProcedure),
	}
}
