// Command openapi asks the demo fleet for a user's orders, by clients that
// oapi-codegen made of the services' OpenAPI documents.
//
//	openapi 1
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/docs/examples/openapi/orderapi"
	"github.com/rollcall-mesh/rollcall/docs/examples/openapi/userapi"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("want one argument: a user's ID")
	}
	id, err := strconv.ParseInt(os.Args[1], 10, 64)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	mesh, err := discovery.Open(ctx, discovery.Config{})
	if err != nil {
		log.Fatal(err)
	}
	err = tell(ctx, os.Stdout, mesh, id)
	mesh.Close()
	if err != nil {
		log.Fatal(err)
	}
}

// tell writes a user's name and orders.
func tell(ctx context.Context, w io.Writer, mesh *discovery.Mesh, id int64) error {
	// The host is a service's name. This is all that makes them clients of the mesh.
	users, err := userapi.NewClientWithResponses("http://user", userapi.WithHTTPClient(mesh.Client()))
	if err != nil {
		return err
	}
	orders, err := orderapi.NewClientWithResponses("http://order", orderapi.WithHTTPClient(mesh.Client()))
	if err != nil {
		return err
	}

	user, err := users.GetUserWithResponse(ctx, id)
	if err != nil {
		return err
	}
	if user.JSON200 == nil {
		return fmt.Errorf("user %d: %s: %s", id, user.Status(), user.Body)
	}
	fmt.Fprintln(w, user.JSON200.Name)

	list, err := orders.ListOrdersWithResponse(ctx, id, nil)
	if err != nil {
		return err
	}
	if list.JSON200 == nil {
		return fmt.Errorf("orders of user %d: %s: %s", id, list.Status(), list.Body)
	}
	for _, order := range *list.JSON200 {
		fmt.Fprintf(w, "%d %s\n", order.OrderId, order.Item)
	}
	return nil
}
