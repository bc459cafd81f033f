package httpmesh_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

func Example() {
	// An instance of the service order.
	server := httptest.NewServer(httpmesh.RequireService("order", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s of %s", r.URL.Path, r.Host)
	})))
	defer server.Close()
	host, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	number, _ := strconv.Atoi(port)

	var source catalog.Fixed // or a watch.Watcher
	if err := source.Set("order", catalog.Instance{ID: "order-a", Host: host, Port: number}); err != nil {
		fmt.Println(err)
		return
	}
	transport, err := httpmesh.New(httpmesh.Config{Source: &source})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer transport.Close()
	client := &http.Client{Transport: transport}

	resp, err := client.Get("http://order/orders/1")
	if err != nil {
		fmt.Println(err)
		return
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	fmt.Println(resp.StatusCode, string(body))

	_, err = client.Get("http://nobody/")
	fmt.Println(errors.Is(err, catalog.ErrNoInstance), err)
	// Output:
	// 200 /orders/1 of order
	// true Get "http://nobody/": pick nobody: no instance ready (0 known): no instance
}
