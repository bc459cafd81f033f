// Package greeting is a piece of a program that calls a service. Its tests show
// how such a piece is tested, see docs/how-to/test-your-program.md.
package greeting

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// For returns what the service greeter says to a name; client is the mesh's.
func For(ctx context.Context, client *http.Client, name string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://greeter/greet/"+url.PathEscape(name), nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("greeter answered %s", resp.Status)
	}
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}
