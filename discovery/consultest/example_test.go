package consultest_test

import (
	"fmt"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// In a test, t is the test's own, best the one of synctest.Test.
func ExampleNew() {
	agent := consultest.New(new(testing.T))
	defer agent.Close() // in a test, its cleanup does that

	client := agent.Client()
	if err := client.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: "order-1", Name: "order", Port: 8080}); err != nil {
		fmt.Println(err)
	}
	entries, _, err := client.Health().Service("order", "", true, nil)
	fmt.Println("entries:", len(entries), "error:", err)

	agent.Break("/v1/health/", consultest.Fail(500, "No cluster leader"))
	_, _, err = client.Health().Service("order", "", true, nil)
	fmt.Println("error:", err)

	agent.Mend()
	agent.Wipe()
	entries, _, err = client.Health().Service("order", "", true, nil)
	fmt.Println("entries:", len(entries), "error:", err)
	// Output:
	// entries: 1 error: <nil>
	// error: Unexpected response code: 500 (No cluster leader)
	// entries: 0 error: <nil>
}
