package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
	"github.com/rollcall-mesh/rollcall/internal/clip"
)

const (
	// prometheusService is the name that Prometheus has in the catalog, and
	// prometheusTag the tag of what it scrapes.
	prometheusService, prometheusTag = "prometheus", "prometheus"
	// mostTargets bounds Prometheus' answer, in bytes: some 20,000 targets.
	mostTargets = 64 << 20
)

// target is what Prometheus says of one (GET /api/v1/targets,
// https://prometheus.io/docs/prometheus/latest/querying/api/#targets).
type target struct {
	DiscoveredLabels map[string]string `json:"discoveredLabels"`
	ScrapeURL        string            `json:"scrapeUrl"`
	LastError        string            `json:"lastError"`
	Health           string            `json:"health"`
}

// askPrometheus asks whether each instance that wants to be scraped is.
func (x *examination) askPrometheus(ctx context.Context) {
	var wanted []*api.ServiceEntry
	for _, e := range x.entries {
		if e.Service.Kind == api.ServiceKindTypical && slices.Contains(e.Service.Tags, prometheusTag) {
			wanted = append(wanted, e)
		}
	}
	if len(wanted) == 0 {
		return
	}
	base := x.cfg.Prometheus
	if base == "" {
		base = x.findPrometheus(ctx)
	}
	if base == "" {
		x.found(Note, checkPrometheus, "if there is one, --prometheus URL says where", "no instance of the service %s passes in the catalog: whether the %s is scraped is not known", prometheusService, count(len(wanted), "instance"))
		return
	}
	targets, err := readTargets(ctx, base)
	if err != nil {
		x.found(Warning, checkPrometheus, "see whether Prometheus runs there; --prometheus URL says where it is", "Prometheus can't be asked for its targets: %s", why(err))
		return
	}
	for _, e := range wanted {
		t := targetOf(targets, e)
		switch {
		case t == nil:
			x.found(Failure, checkPrometheus, "see the configuration of Prometheus (consul_sd_configs: its server, filters and refresh_interval, and its token's rights), and "+base+"/service-discovery, for what it knows and drops; one that has just joined comes by itself",
				"%s has the tag %s, and Prometheus at %s has no target for it", name(e), prometheusTag, base)
		case t.Health == "down":
			x.found(Failure, checkPrometheus, "see whether that answers from where Prometheus runs; prometheus_port and prometheus_path in the entry's Meta say where the metrics are",
				"Prometheus can't scrape %s at %s: %s", name(e), t.ScrapeURL, clip.To(200, oneLine(t.LastError)))
		}
	}
	x.well(checkPrometheus, "scrapes the %s that want it, from %s", count(len(wanted), "instance"), base)
}

// findPrometheus is the URL of the first instance in the catalog that passes; empty:
// there is none.
func (x *examination) findPrometheus(ctx context.Context) string {
	q, cancel := query(ctx)
	defer cancel()
	entries, _, err := consul.Instances(x.cfg.Client, prometheusService, q)
	if err != nil {
		return ""
	}
	for _, e := range usable(entries) {
		if e.Checks.AggregatedStatus() == api.HealthPassing {
			return "http://" + address(e)
		}
	}
	return ""
}

func readTargets(ctx context.Context, base string) ([]target, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(base, "/")+"/api/v1/targets?state=active", http.NoBody)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", req.URL, resp.Status)
	}
	var answer struct {
		Data struct {
			ActiveTargets []target `json:"activeTargets"`
		}
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, mostTargets)).Decode(&answer); err != nil {
		return nil, fmt.Errorf("%s is not answered as Prometheus does: %w", req.URL, err)
	}
	return answer.Data.ActiveTargets, nil
}

// targetOf is the target of an instance, by what Consul's discovery told Prometheus, or
// by the address where it is configured otherwise; nil: there is none.
func targetOf(targets []target, e *api.ServiceEntry) *target {
	at := address(e)
	if port := e.Service.Meta["prometheus_port"]; port != "" {
		at = net.JoinHostPort(host(e), port)
	}
	i := slices.IndexFunc(targets, func(t target) bool {
		l := t.DiscoveredLabels
		if id := l["__meta_consul_service_id"]; id != "" {
			return id == e.Service.ID && l["__meta_consul_node"] == e.Node.Node
		}
		u, err := url.Parse(t.ScrapeURL)
		return err == nil && u.Host == at
	})
	if i < 0 {
		return nil
	}
	return &targets[i]
}
