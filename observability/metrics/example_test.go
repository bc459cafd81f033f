package metrics_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/rollcall-mesh/rollcall/observability/metrics"
)

func Example() {
	m := metrics.New(metrics.Config{Service: "order", Peers: []string{"user"}})
	m.Server().Begin()
	m.Server().End("GET /orders/{user}", http.MethodGet, 200, 2*time.Millisecond)

	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "http_server_request_duration_seconds_count") {
			fmt.Print(line)
		}
	}
	// Output: http_server_request_duration_seconds_count{code="200",method="GET",route="GET /orders/{user}",service="order"} 1
}
