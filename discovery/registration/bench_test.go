package registration

import (
	"fmt"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// seed puts 5,000 instances of order into the catalog, so many on a node.
func seed(b *testing.B, c *api.Client, perNode int) {
	b.Helper()
	const instances, most = 5000, 20
	var ops api.TxnOps
	flush := func() {
		if len(ops) == 0 {
			return
		}
		ok, resp, _, err := c.Txn().Txn(ops, nil)
		if err != nil || !ok {
			b.Fatal(ok, resp, err)
		}
		ops = ops[:0]
	}
	for i := range instances {
		node, id := fmt.Sprintf("n%d", i/perNode), fmt.Sprintf("order-%d", i)
		if i%perNode == 0 {
			ops = append(ops, &api.TxnOp{Node: &api.NodeTxnOp{Verb: api.NodeSet, Node: api.Node{Node: node, Address: "10.0.0.1"}}})
		}
		ops = append(ops,
			&api.TxnOp{Service: &api.ServiceTxnOp{Verb: api.ServiceSet, Node: node, Service: api.AgentService{
				ID: id, Service: "order", Address: "10.0.0.1", Port: 1 + i, Meta: map[string]string{processKey: fmt.Sprint("p", i)},
			}}},
			&api.TxnOp{Check: &api.CheckTxnOp{Verb: api.CheckSet, Check: api.HealthCheck{
				Node: node, CheckID: heartbeatCheck(id), Name: "heartbeat", Status: api.HealthPassing, ServiceID: id, ServiceName: "order", Notes: fmt.Sprint("p", i),
			}}})
		if len(ops) >= 2*most {
			flush()
		}
	}
	flush()
}

// BenchmarkLook is one look at the own entry beside 5,000 instances of the service,
// by the node, as it is done, and by the service.
func BenchmarkLook(b *testing.B) {
	for _, perNode := range []int{5, 5000} {
		server := consultest.Real(b)
		c := server.Client()
		seed(b, c, perNode)
		node := fmt.Sprintf("n%d", 2500/perNode)
		for _, look := range []struct {
			name string
			do   func() (int, error)
		}{
			{"node", func() (int, error) {
				list, _, err := c.Catalog().NodeServiceList(node, &api.QueryOptions{Filter: fmt.Sprintf("Meta[%q] == %q", processKey, "p2500")})
				if err != nil {
					return 0, err
				}
				checks, _, err := c.Health().Node(node, &api.QueryOptions{Filter: `Notes == "p2500"`})
				return min(len(list.Services), len(checks)), err
			}},
			{"service", func() (int, error) {
				found, _, err := c.Health().Service("order", "", false, &api.QueryOptions{Filter: `Service.ID == "order-2500"`})
				return len(found), err
			}},
		} {
			b.Run(fmt.Sprintf("%d on a node/by %s", perNode, look.name), func(b *testing.B) {
				for b.Loop() {
					if n, err := look.do(); n != 1 || err != nil {
						b.Fatal(n, err)
					}
				}
			})
		}
	}
}
