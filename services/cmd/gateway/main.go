// Command gateway is the one door into the mesh: it sends requests from outside
// to the services that its settings name, and to those that claim a route in the
// catalog.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/mtls"
	"github.com/rollcall-mesh/rollcall/observability/health"
	"github.com/rollcall-mesh/rollcall/services/gateway"
	"github.com/rollcall-mesh/rollcall/services/gateway/routing"
	"github.com/rollcall-mesh/rollcall/services/gateway/split"
	"github.com/rollcall-mesh/rollcall/services/internal/app"
)

var settings struct {
	UsersListen    app.Addr     `name:"users-listen" env:"ROLLCALL_USERS_LISTEN" default:":5000" help:"Address of a port that serves the pinned routes of user only; it is not opened if there are none."`
	OrdersListen   app.Addr     `name:"orders-listen" env:"ROLLCALL_ORDERS_LISTEN" default:":5001" help:"Address of a port that serves the pinned routes of order only; it is not opened if there are none."`
	Pinned         string       `name:"pinned" env:"ROLLCALL_PINNED" default:"/users=user,/orders=order" help:"Routes that nobody can claim, as prefix=service or host/prefix=service, with strip or rewrite=/path behind it; none: no such route."`
	Routes         app.Choice   `name:"routes" env:"ROLLCALL_ROUTES" default:"pinned" oneof:"pinned,learned" help:"pinned: only these routes; learned: besides, those that services claim in the catalog."`
	Keys           string       `name:"keys" env:"ROLLCALL_GATEWAY_KEYS" default:"rollcall/gateway" help:"Folder in Consul's KV for the owners of learned routes and for splits. Gateways with different pinned routes need different ones."`
	TrustedProxies string       `name:"trusted-proxies" env:"ROLLCALL_TRUSTED_PROXIES" help:"Networks of load balancers, such as 10.0.0.0/8,2001:db8::/32: what they say of a client is believed. Empty: nobody is."`
	ProxyHeaders   app.Choice   `name:"proxy-headers" env:"ROLLCALL_PROXY_HEADERS" default:"x-forwarded" oneof:"x-forwarded,forwarded" help:"The headers that trusted proxies write: X-Forwarded-For, -Proto and -Host, or Forwarded of RFC 7239. The others are dropped."`
	StreamTimeout  app.Duration `name:"stream-timeout" env:"ROLLCALL_STREAM_TIMEOUT" default:"30s" min:"10ms" max:"1h" help:"How long one piece of a body may take to come in or to go out; a stream that moves lives for ever. It replaces the read and write timeouts."`
	AnswerTimeout  app.Duration `name:"answer-timeout" env:"ROLLCALL_ANSWER_TIMEOUT" default:"10s" min:"10ms" max:"1h" help:"How long a service may take from the last piece of a request to the header of its answer, all tries together; after that the answer is 504."`

	ConsulUI     app.URL    `name:"consul-ui" env:"ROLLCALL_CONSUL_UI" help:"Where people find Consul's UI, for links of the page /mesh/: a service is at /services/NAME below it. Empty: no links."`
	PrometheusUI app.URL    `name:"prometheus-ui" env:"ROLLCALL_PROMETHEUS_UI" help:"Where people find Prometheus, for links of the page /mesh/. Empty: no links."`
	MeshTry      app.Choice `name:"mesh-try" env:"ROLLCALL_MESH_TRY" default:"off" oneof:"off,on" help:"Whether the page /mesh/ may send a GET to a service, to show whom it goes to: off, on."`

	OutsideCert    string `name:"outside-cert" env:"ROLLCALL_OUTSIDE_CERT" help:"File of the certificate in PEM, followed by those between it and the root, that clients from outside are shown. With it the traffic ports speak TLS. Empty: plain text."`
	OutsideKey     string `name:"outside-key" env:"ROLLCALL_OUTSIDE_KEY" help:"File of its key in PEM."`
	OutsideCA      string `name:"outside-ca" env:"ROLLCALL_OUTSIDE_CA" help:"File of the roots in PEM that the certificates of clients from outside must come from, where they need one."`
	OutsideCallers string `name:"outside-callers" env:"ROLLCALL_OUTSIDE_CALLERS" help:"Names, with commas between, of which a client's certificate must have one; *: each certificate from the roots. Empty: anybody may call, without a certificate."`
}

// What the texts of the settings say.
var (
	pinned  []gateway.Route
	proxies []netip.Prefix
)

func main() { os.Exit(app.Main(spec())) }

func spec() app.Spec {
	return app.Spec{
		Name:         "gateway",
		Describe:     "The one door into the mesh: sends requests from outside to the services that its settings name, and to those that claim a route in the catalog.",
		RequirePeers: true,
		Edge:         true,
		Settings:     &settings,
		Complete:     complete,
		Build:        build,
	}
}

func complete(spec *app.Spec) error {
	// An empty variable means the default, as Compose passes on what nobody set.
	settings.Pinned = cmp.Or(settings.Pinned, "/users=user,/orders=order")
	settings.Keys = cmp.Or(settings.Keys, "rollcall/gateway")
	var err error
	if pinned, err = routing.ParsePinned(settings.Pinned); err != nil {
		return &app.SettingError{Name: "ROLLCALL_PINNED (--pinned)", Value: settings.Pinned, Want: "routes such as /users=user,/orders=order: " + err.Error()}
	}
	if proxies, err = parseNetworks(settings.TrustedProxies); err != nil {
		return &app.SettingError{Name: "ROLLCALL_TRUSTED_PROXIES (--trusted-proxies)", Value: settings.TrustedProxies, Want: "networks such as 10.0.0.0/8,2001:db8::/32: " + err.Error()}
	}
	for _, r := range pinned {
		if !slices.Contains(spec.Peers, r.Service) {
			spec.Peers = append(spec.Peers, r.Service)
		}
	}
	return nil
}

// parseNetworks reads networks, and addresses as networks of one.
func parseNetworks(text string) ([]netip.Prefix, error) {
	var networks []netip.Prefix
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		network, err := netip.ParsePrefix(item)
		if err != nil {
			addr, notAddr := netip.ParseAddr(item)
			if notAddr != nil {
				return nil, err
			}
			network = netip.PrefixFrom(addr, addr.BitLen())
		}
		networks = append(networks, network.Masked())
	}
	return networks, nil
}

// outside returns the identity of the listeners; nil for plain text.
func outside() *mtls.Config {
	s := settings
	if s.OutsideCert == "" && s.OutsideKey == "" && s.OutsideCA == "" && s.OutsideCallers == "" {
		return nil
	}
	return &mtls.Config{CertFile: s.OutsideCert, KeyFile: s.OutsideKey, CAFile: s.OutsideCA, Callers: app.Names(s.OutsideCallers)}
}

func build(_ context.Context, r *app.Runtime) (app.Parts, error) {
	cfg := gateway.Config{
		Transport:     r.Transport,
		AnswerTimeout: time.Duration(settings.AnswerTimeout),
		Proxies:       proxies,
		ProxyHeaders:  string(settings.ProxyHeaders),
		Log:           r.Log,
	}
	parts := app.Parts{TLS: outside(), Stream: time.Duration(settings.StreamTimeout), Pages: map[string]http.Handler{}}
	splits := split.NewFollower(r.Mesh, settings.Keys+"/splits", r.Log)
	if err := r.Registry.Register(splits); err != nil {
		return app.Parts{}, err
	}
	r.Go(splits.Run) //nolint:contextcheck // it ends by OnClose, not with the start
	cfg.Splits = splits.Splits
	parts.Pages["GET /debug/splits"] = show(func() any { return splits.Status() })
	if settings.Routes == "learned" {
		learner, err := learn(r) //nolint:contextcheck // as above
		if err != nil {
			return parts, err
		}
		cfg.Learned = learner.Table
		parts.Pages["GET /debug/routes"] = show(func() any { return learner.Status() })
	}
	if err := look(r, cfg.Learned, parts.Pages); err != nil {
		return parts, err
	}
	door, err := gateway.New(cfg)
	if err != nil {
		return parts, err
	}
	parts.Handler = door.Door(pinned...)
	for _, port := range []struct {
		addr    app.Addr
		service string
	}{{settings.UsersListen, "user"}, {settings.OrdersListen, "order"}} {
		if routes := routing.NewTable(pinned...).Of(port.service); len(routes) > 0 {
			parts.More = append(parts.More, app.Port{Addr: port.addr, Handler: door.Handler(routes...)})
		}
	}
	return parts, nil
}

// show serves a value as JSON, for operators.
func show(value func() any) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		out := json.NewEncoder(w)
		out.SetIndent("", "  ")
		_ = out.Encode(value()) // a reader that has gone needs no answer
	})
}

// learn begins to learn the routes that services claim.
func learn(r *app.Runtime) (*routing.Learner, error) {
	learner, err := routing.NewLearner(routing.Config{
		Catalog: r.Mesh, Source: r.Mesh.Source(""), Key: settings.Keys + "/owners", Pinned: pinned, Self: "gateway", Log: r.Log,
	})
	if err != nil {
		return nil, err
	}
	if err := r.Registry.Register(learner); err != nil {
		return nil, err
	}
	r.Health.Add("first answer about routes", health.Required, func(context.Context) error { return learner.Ready() })
	r.Go(learner.Run)
	return learner, nil
}
