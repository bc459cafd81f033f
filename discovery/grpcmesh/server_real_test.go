package grpcmesh_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/peer"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/grpcmesh"
)

type empty struct {
	testpb.UnimplementedTestServiceServer
}

func (empty) EmptyCall(context.Context, *testpb.Empty) (*testpb.Empty, error) {
	return &testpb.Empty{}, nil
}

// A client of grpc-go alone finds the instances whose health Consul has checked,
// by its DNS. All must have one port: grpc-go asks for addresses, not for SRV.
func TestConsulChecksTheHealthAndAStockClientFindsTheHealthyByDNS(t *testing.T) {
	t.Parallel()
	consul := consultest.Real(t)
	port := "0"
	var servers []*grpcmesh.Server
	for _, host := range []string{"127.0.0.2", "127.0.0.3"} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, port))
		if err != nil {
			t.Skipf("needs several addresses of the loopback interface, with one port: %v", err)
		}
		_, port, _ = net.SplitHostPort(l.Addr().String())
		server, err := grpcmesh.NewServer(grpcmesh.ServerConfig{Service: "order"})
		if err != nil {
			t.Fatal(err)
		}
		testpb.RegisterTestServiceServer(server, empty{})
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()
		t.Cleanup(func() {
			server.Stop()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
		servers = append(servers, server)
		body := fmt.Sprintf(`{"ID": "order-%s", "Name": "order", "Tags": ["grpc"], "Address": %q, "Port": %s,
			"Check": {"GRPC": %q, "Interval": "250ms", "Timeout": "10s"}}`, host, host, port, l.Addr())
		register(t, "http://"+consul.Addr()+"/v1/agent/service/register", body)
	}
	are := func(want string) {
		t.Helper()
		resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, consul.DNS())
		}}
		var got string
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			found, err := resolver.LookupHost(t.Context(), "grpc.order.service.consul")
			slices.Sort(found)
			if got = strings.Join(found, " "); got == want {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("Consul's DNS says %q, %v; want %q", got, err, want)
			}
		}
	}
	are("127.0.0.2 127.0.0.3")

	target := "dns://" + consul.DNS() + "/grpc.order.service.consul:" + port
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	seen := map[string]bool{}
	for end := time.Now().Add(30 * time.Second); len(seen) < 2; {
		var from peer.Peer
		if _, err := testpb.NewTestServiceClient(conn).EmptyCall(t.Context(), &testpb.Empty{}, grpc.Peer(&from), grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
		seen[from.Addr.String()] = true
		if time.Now().After(end) {
			t.Fatalf("only %v has served; want both", seen)
		}
	}

	servers[0].Retire()
	are("127.0.0.3")
}

func register(t *testing.T, url, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("PUT %s: %s", url, resp.Status)
	}
}
