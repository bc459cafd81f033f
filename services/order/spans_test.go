package order

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/rollcall-mesh/rollcall/observability/tracing/otlp"
	"github.com/rollcall-mesh/rollcall/observability/tracing/otlptest"
)

func TestSpansTellOfTheLookUpOfAKeyAndOfTheDatabase(t *testing.T) {
	at := otlptest.New(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", at.HTTP())
	spans, err := otlp.Open(t.Context(), otlp.Config{Service: "order"})
	if err != nil {
		t.Fatal(err)
	}
	service, err := NewService(Config{Store: openStore(t, filepath.Join(t.TempDir(), "order.db")), Users: NewUsers(known, 0)})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(spans.Tracing().Server().Handler(NewHTTPHandler(NewEndpoints(service), slog.New(slog.DiscardHandler))))
	t.Cleanup(server.Close)
	for _, want := range []bool{false, true} {
		if answer, replayed := place(t, server, "/orders/1", "key", `{"item":"Lamp"}`); replayed != want {
			t.Errorf("got %s, given before: %v; want %v", answer, replayed, want)
		}
	}
	resp, err := server.Client().Get(server.URL + "/orders/1/999")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	server.Close()
	if err := spans.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := `order server POST /orders/{user}
  order internal idempotency look-up
    order internal sqlite read
  order internal sqlite write
order server POST /orders/{user}
  order internal idempotency look-up
    order internal sqlite read
order server GET /orders/{user}/{order}
  order internal sqlite read
`
	if got := at.Tree(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	for _, s := range at.Spans() {
		if s.Failed {
			t.Errorf("%s has failed: %s; want none, for no such order is an answer", s.Name, s.Message)
		}
	}
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("got %d; want that there is no such order", resp.StatusCode)
	}
}
