package consul

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-mesh/rollcall/internal/nettest"
)

func TestSecondAddressOfConsulsNameIsTriedWhenTheFirstSwallowsPackets(t *testing.T) {
	clean(t)
	l := listen(t, "tcp", "127.0.0.3:0")
	agent(t, l)
	nettest.Swallow(t, "127.0.0.2", l.Addr().(*net.TCPAddr).Port)
	before := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = before })
	net.DefaultResolver = nettest.Names(t, "127.0.0.2", "127.0.0.3")
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if got := ask(t, Config{Address: "consul.example:" + port}); got.Path != "/v1/status/peers" {
		t.Errorf("got %+v; want an answer from the second address", got)
	}
}

// ends are addresses by what dialling them does.
type ends map[string]func(context.Context) (net.Conn, error)

func (e ends) dialer(order ...string) *dialer {
	return &dialer{
		limit: 2 * time.Second,
		lookup: func(context.Context, string, string) (all []netip.Addr, err error) {
			for _, ip := range order {
				all = append(all, netip.MustParseAddr(ip))
			}
			return all, nil
		},
		dial: func(ctx context.Context, _, addr string) (net.Conn, error) {
			host, _, _ := net.SplitHostPort(addr)
			return e[host](ctx)
		},
	}
}

var errRefused = errors.New("refused")

func silent(ctx context.Context) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
func refuses(context.Context) (net.Conn, error)    { return nil, errRefused }

// after connects when so much time has gone by, and counts what it left open.
func after(d time.Duration, open *sync.WaitGroup) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			ours, theirs := net.Pipe()
			open.Go(func() { _, _ = theirs.Read(make([]byte, 1)) }) // until ours is closed
			return ours, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func TestAddressesOfANameShareOneLimit(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name  string
		order []string
		ends  func(open *sync.WaitGroup) ends
		took  time.Duration
		err   error
	}{
		{"the only one has all of it", []string{"::1"}, func(o *sync.WaitGroup) ends { return ends{"::1": after(1999*ms, o)} }, 1999 * ms, nil},
		{"a slow first is not given up for the second", []string{"10.0.0.1", "10.0.0.2"}, func(o *sync.WaitGroup) ends {
			return ends{"10.0.0.1": after(1900*ms, o), "10.0.0.2": silent}
		}, 1900 * ms, nil},
		{"a silent first", []string{"10.0.0.1", "10.0.0.2"}, func(o *sync.WaitGroup) ends {
			return ends{"10.0.0.1": silent, "10.0.0.2": after(0, o)}
		}, 500 * ms, nil},
		{"the last of four has half of it", []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"}, func(o *sync.WaitGroup) ends {
			return ends{"10.0.0.1": silent, "10.0.0.2": silent, "10.0.0.3": silent, "10.0.0.4": after(1000*ms, o)}
		}, 1750 * ms, nil},
		{"a first that refuses costs nothing", []string{"10.0.0.1", "10.0.0.2"}, func(o *sync.WaitGroup) ends {
			return ends{"10.0.0.1": refuses, "10.0.0.2": after(0, o)}
		}, 0, nil},
		{"both connect, one is kept", []string{"10.0.0.1", "10.0.0.2"}, func(o *sync.WaitGroup) ends {
			return ends{"10.0.0.1": after(600*ms, o), "10.0.0.2": after(100*ms, o)}
		}, 600 * ms, nil},
		{"all silent", []string{"10.0.0.1", "10.0.0.2"}, func(*sync.WaitGroup) ends {
			return ends{"10.0.0.1": silent, "10.0.0.2": silent}
		}, 2000 * ms, context.DeadlineExceeded},
		{"all refuse", []string{"10.0.0.1", "10.0.0.2"}, func(*sync.WaitGroup) ends {
			return ends{"10.0.0.1": refuses, "10.0.0.2": refuses}
		}, 0, errRefused},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var open sync.WaitGroup
				began := time.Now()
				conn, err := c.ends(&open).dialer(c.order...).DialContext(t.Context(), "tcp", "consul.example:8500")
				if took := time.Since(began); took != c.took || !errors.Is(err, c.err) || (conn == nil) != (err != nil) {
					t.Errorf("got %v, %v after %s; want %v after %s", conn, err, took, c.err, c.took)
				}
				if conn != nil {
					_ = conn.Close()
				}
				open.Wait() // a connection left open is a deadlock of the bubble
			})
		})
	}
}

// TestLookupThatHangsHoldsUpNoLaterOne has a name server that is silent at first, as
// Docker's is about a container that is stopped.
func TestLookupThatHangsHoldsUpNoLaterOne(t *testing.T) {
	before := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = before })
	known := nettest.Names(t, "127.0.0.2")
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	var up, over atomic.Bool
	var mu sync.Mutex
	var conns []net.Conn
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if over.Load() {
			return nil, errors.New("the test is over")
		}
		if up.Load() {
			return known.Dial(ctx, network, addr)
		}
		conn, err := new(net.Dialer).DialContext(ctx, "udp", silent.LocalAddr().String())
		mu.Lock()
		defer mu.Unlock()
		conns = append(conns, conn)
		return conn, err
	}}
	defer func() { // the resolver itself would wait for some seconds more
		over.Store(true)
		mu.Lock()
		defer mu.Unlock()
		for _, conn := range conns {
			_ = conn.Close()
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	var hanging sync.WaitGroup
	defer hanging.Wait()
	defer cancel()
	for range 3 {
		hanging.Go(func() { _, _ = lookup(ctx, "ip", "consul.example") })
	}
	time.Sleep(200 * time.Millisecond) // until they hang
	up.Store(true)
	soon, stop := context.WithTimeout(t.Context(), 3*time.Second)
	defer stop()
	ips, err := lookup(soon, "ip", "consul.example")
	if err != nil || len(ips) != 1 || ips[0].Unmap().String() != "127.0.0.2" {
		t.Errorf("got %v, %v; want the address, which is known by now", ips, err)
	}
}
