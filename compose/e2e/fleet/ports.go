package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
)

// Ports are the fleet's host ports, each on 127.0.0.1.
type Ports struct {
	Gateway, GatewayAdmin, Users, Orders, Consul, ConsulDNS, Prometheus int
}

// Defaults are the ports of a fleet that was told nothing.
var Defaults = Ports{Gateway: 8080, GatewayAdmin: 8081, Users: 5000, Orders: 5001, Consul: 8500, ConsulDNS: 8600, Prometheus: 9090}

// Env is the ports as compose.yaml wants them.
func (p Ports) Env() map[string]int {
	return map[string]int{
		"ROLLCALL_GATEWAY_PORT":       p.Gateway,
		"ROLLCALL_GATEWAY_ADMIN_PORT": p.GatewayAdmin,
		"ROLLCALL_USERS_PORT":         p.Users,
		"ROLLCALL_ORDERS_PORT":        p.Orders,
		"ROLLCALL_CONSUL_PORT":        p.Consul,
		"ROLLCALL_CONSUL_DNS_PORT":    p.ConsulDNS,
		"ROLLCALL_PROMETHEUS_PORT":    p.Prometheus,
	}
}

// FreePorts finds ports that nobody listens on. All are held until the last is found, so that none is given twice.
func FreePorts(ctx context.Context) (Ports, error) {
	var p Ports
	var held []io.Closer
	defer func() {
		for _, c := range held {
			_ = c.Close()
		}
	}()
	for _, port := range []*int{&p.Gateway, &p.GatewayAdmin, &p.Users, &p.Orders, &p.Consul, &p.Prometheus} {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return Ports{}, fmt.Errorf("find a free port: %w", err)
		}
		held = append(held, l)
		*port = l.Addr().(*net.TCPAddr).Port
	}
	// Consul's DNS needs the same port free for UDP and TCP.
	for range 20 {
		u, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", "127.0.0.1:0")
		if err != nil {
			return Ports{}, fmt.Errorf("find a free port: %w", err)
		}
		held = append(held, u)
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", u.LocalAddr().String())
		if err != nil {
			continue
		}
		held = append(held, l)
		p.ConsulDNS = l.Addr().(*net.TCPAddr).Port
		return p, nil
	}
	return Ports{}, errors.New("find a port that is free for UDP and TCP: none in 20 tries")
}

// FreePort finds one more port that nobody listens on.
func FreePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// Free reports whether nobody listens on a port.
func Free(ctx context.Context, port int) bool {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	return err == nil && l.Close() == nil
}
