// Command crash serves orders from the database that it is given, to users that
// all exist, with /faults on the same port. It prints its address, and is to be
// built with the tag faults.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/rollcall-mesh/rollcall/services/internal/fault"
	"github.com/rollcall-mesh/rollcall/services/order"
)

func main() {
	if err := run(context.Background(), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, path string) error {
	store, err := order.OpenSQLite(ctx, path)
	if err != nil {
		return err
	}
	everybody := func(context.Context, any) (any, error) { return true, nil }
	service, err := order.NewService(order.Config{Store: store, Users: order.NewUsers(everybody, 0)})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	handler := fault.Traffic(order.NewHTTPHandler(order.NewEndpoints(service), slog.Default()))
	return http.Serve(listener, fault.Admin(handler))
}
