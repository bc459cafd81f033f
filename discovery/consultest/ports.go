package consultest

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
)

type ports struct {
	HTTP    int `json:"http"`
	Server  int `json:"server"`
	SerfLAN int `json:"serf_lan"`
	SerfWAN int `json:"serf_wan"`
	DNS     int `json:"dns"`
	GRPC    int `json:"grpc"`
	GRPCTLS int `json:"grpc_tls"`
	HTTPS   int `json:"https"`
}

// The range that ports are taken from lies below those that systems give to
// outgoing connections (32768 and up on Linux, 49152 elsewhere): a port from
// there may be taken while Consul is down for a restart.
const (
	firstPort = 12000
	lastPort  = 31999
)

// freePorts finds ports, which are free at all of the addresses, for what can't be
// switched off (-1 does that).
func freePorts(addresses ...string) (ports, error) {
	p := ports{SerfWAN: -1, GRPC: -1, GRPCTLS: -1, HTTPS: -1}
	for _, port := range []*int{&p.HTTP, &p.Server, &p.SerfLAN, &p.DNS} {
		var err error
		for range 100 {
			n := firstPort + rand.IntN(lastPort-firstPort+1)
			if n == p.HTTP || n == p.Server || n == p.SerfLAN {
				continue
			}
			if err = free(n, addresses); err == nil {
				*port = n
				break
			}
		}
		if *port == 0 {
			return p, err
		}
	}
	return p, nil
}

// findWAN finds a port for gossip with other datacenters.
func (p *ports) findWAN(addresses ...string) (err error) {
	for range 100 {
		n := firstPort + rand.IntN(lastPort-firstPort+1)
		if n == p.HTTP || n == p.Server || n == p.SerfLAN {
			continue
		}
		if err = free(n, addresses); err == nil {
			p.SerfWAN = n
			return nil
		}
	}
	return err
}

// free reports why a port can't be had, for TCP and, as Serf wants it, UDP.
func free(port int, addresses []string) error {
	for _, host := range slices.Compact(addresses) {
		addr := net.JoinHostPort(host, strconv.Itoa(port))
		var lc net.ListenConfig
		l, err := lc.Listen(context.Background(), "tcp", addr)
		if err != nil {
			return err
		}
		u, err := lc.ListenPacket(context.Background(), "udp", addr)
		if err != nil {
			return errors.Join(err, l.Close())
		}
		if err := errors.Join(u.Close(), l.Close()); err != nil {
			return err
		}
	}
	return nil
}
