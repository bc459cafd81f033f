// Command client asks a service by its name, and prints the answer.
//
//	client http://greeter/greet/Ann
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("want one argument: a URL whose host is a service's name")
	}
	if err := run(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	mesh, err := discovery.Open(ctx, discovery.Config{})
	if err != nil {
		return err
	}
	defer mesh.Close()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := mesh.Client().Do(req)
	if errors.Is(err, discovery.ErrNoInstance) {
		return fmt.Errorf("nothing offers that service, or nothing that may be used: %w", err)
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
}
