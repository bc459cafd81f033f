package app

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// askLive asks the service that listens at the admin address of this machine
// whether it is live.
func askLive(ctx context.Context, listen string) error {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("admin address %q: %w", listen, err)
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "127.0.0.1" // every address is listened at: this one, too
	}
	url := "http://" + net.JoinHostPort(host, port) + "/livez"
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	// A proxy from the environment is not the way to ourselves.
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return fmt.Errorf("not live: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return fmt.Errorf("not live: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not live: %s answers %s: %s", url, resp.Status, body)
	}
	return nil
}
