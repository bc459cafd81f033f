package app

import (
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/services/internal/web"
)

// Settings are what every service can be told, by flag or by environment; a
// flag wins. A service adds its own (Spec.Settings).
type Settings struct {
	Listen        Addr   `name:"listen" env:"ROLLCALL_LISTEN" default:":8080" help:"Address of the traffic port; port 0 takes a free one."`
	AdminListen   Addr   `name:"admin-listen" env:"ROLLCALL_ADMIN_LISTEN" default:":8081" help:"Address of the admin port: metrics, health, profiles. It must not be reachable from outside."`
	GRPCListen    Addr   `name:"grpc-listen" env:"ROLLCALL_GRPC_LISTEN" default:":8082" help:"Address of the gRPC port, of a service that has one; port 0 takes a free one. Not in the gateway."`
	AdvertiseHost string `name:"advertise-host" env:"ROLLCALL_ADVERTISE_HOST" help:"Address or host name by which others reach this instance. Empty: the local address of a connection towards Consul."`
	InstanceID    string `name:"instance-id" env:"ROLLCALL_INSTANCE_ID" help:"ID of this instance in Consul, unique there; that of its gRPC port has -grpc behind it. Empty: service, host name and port."`
	Consul        string `name:"consul" env:"CONSUL_HTTP_ADDR" help:"Address of Consul. Empty: 127.0.0.1:8500. The other CONSUL_* variables are Consul's own, the token among them."`

	GRPCReflection Choice `name:"grpc-reflection" env:"ROLLCALL_GRPC_REFLECTION" default:"off" oneof:"off,on" help:"Whether the gRPC port tells what it offers, to grpcurl and the like: off, on."`

	LogLevel  Choice `name:"log-level" env:"ROLLCALL_LOG_LEVEL" default:"info" oneof:"debug,info,warn,error" help:"Least important level that is logged: debug, info, warn, error."`
	LogFormat Choice `name:"log-format" env:"ROLLCALL_LOG_FORMAT" default:"auto" oneof:"auto,json,text" help:"json, text, or auto: text on a terminal, else json."`

	ReadHeaderTimeout Duration `name:"read-header-timeout" env:"ROLLCALL_READ_HEADER_TIMEOUT" default:"5s" min:"10ms" max:"10m" help:"How long a client may take to send a request's header."`
	ReadTimeout       Duration `name:"read-timeout" env:"ROLLCALL_READ_TIMEOUT" default:"10s" min:"10ms" max:"1h" help:"How long a request may take to come in. Not in the gateway, see --stream-timeout there."`
	WriteTimeout      Duration `name:"write-timeout" env:"ROLLCALL_WRITE_TIMEOUT" default:"15s" min:"10ms" max:"1h" help:"Until when, from its header on, a request's answer must be out. Not in the gateway, see --stream-timeout there."`
	IdleTimeout       Duration `name:"idle-timeout" env:"ROLLCALL_IDLE_TIMEOUT" default:"2m" min:"10ms" max:"1h" help:"How long a connection may wait for its next request."`
	MaxHeaderBytes    Count    `name:"max-header-bytes" env:"ROLLCALL_MAX_HEADER_BYTES" default:"16384" min:"1024" max:"65536" help:"Largest header of a request; a larger one is answered 431."`
	MaxConnections    Count    `name:"max-connections" env:"ROLLCALL_MAX_CONNECTIONS" default:"1024" min:"1" max:"1000000" help:"Connections to the traffic ports at most; the next one is answered 503 and closed."`
	MaxRequests       Count    `name:"max-requests" env:"ROLLCALL_MAX_REQUESTS" default:"0" min:"0" max:"1000000" help:"Requests in flight on the traffic ports at most, streams and upgraded connections included; the next one is answered 503. 0: as many as connections."`
	MaxStreams        Count    `name:"max-streams" env:"ROLLCALL_MAX_STREAMS" default:"100" min:"1" max:"10000" help:"Requests in flight on one HTTP/2 connection at most, gRPC's included."`
	OverloadFrom      Count    `name:"overload-from" env:"ROLLCALL_OVERLOAD_FROM" default:"48" min:"1" max:"1024" help:"Reads, or writes, at work at once from which on a limit is sought and the rest is answered 503; with fewer nothing is shed. Not in the gateway."`

	TLSCert       string `name:"tls-cert" env:"ROLLCALL_TLS_CERT" help:"File of this service's certificate in PEM, followed by those between it and the root. It is shown to the services that are called, and the traffic port speaks TLS with it (not in the gateway, see --outside-cert there). Empty: none, and plain text."`
	TLSKey        string `name:"tls-key" env:"ROLLCALL_TLS_KEY" help:"File of the certificate's key in PEM."`
	TLSCA         string `name:"tls-ca" env:"ROLLCALL_TLS_CA" help:"File of the roots in PEM that the certificates of other services, and of callers, must come from. With it other services are called by https, without it by http."`
	TLSServerName string `name:"tls-server-name" env:"ROLLCALL_TLS_SERVER_NAME" help:"Name that the certificate of a called service must have; {service} in it stands for the service's name. Empty: the service's name."`
	TLSCallers    string `name:"tls-callers" env:"ROLLCALL_TLS_CALLERS" help:"Names, with commas between, of which a caller's certificate must have one, by DNS name or URI; *: each certificate from the roots. Empty: anybody may call, without a certificate. Not in the gateway, see --outside-callers there."`

	DialTimeout Duration `name:"dial-timeout" env:"ROLLCALL_DIAL_TIMEOUT" default:"300ms" min:"1ms" max:"1m" help:"How long a request waits for a connection to another instance before it goes elsewhere. The dial goes on for ten times as long."`
	TryTimeout  Duration `name:"try-timeout" env:"ROLLCALL_TRY_TIMEOUT" default:"${try_timeout}" min:"1ms" max:"10m" help:"How long one instance may take to answer before another is asked beside it. A silence of that length is its failure."`
	MissingFor  Duration `name:"missing-for" env:"ROLLCALL_MISSING_FOR" default:"30s" min:"1ms" max:"1h" help:"How long an instance that vanished from Consul is still used."`
	StaleFor    Duration `name:"stale-for" env:"ROLLCALL_STALE_FOR" default:"0s" min:"0s" max:"8760h" help:"How long the last good set of instances is used while Consul is silent; 0s: for ever."`
	Snapshots   string   `name:"snapshots" env:"ROLLCALL_SNAPSHOTS" help:"Folder in which the last set of instances of each service is kept, for a start while Consul is away. Empty: none is kept."`

	Settle       Duration `name:"settle" env:"ROLLCALL_SETTLE" default:"500ms" min:"1ms" max:"1m" help:"How long a drain waits after Consul shows this instance as draining."`
	SettleMax    Duration `name:"settle-max" env:"ROLLCALL_SETTLE_MAX" default:"3s" min:"1ms" max:"10m" help:"How long it waits at most while new requests still arrive."`
	DrainTimeout Duration `name:"drain-timeout" env:"ROLLCALL_DRAIN_TIMEOUT" default:"7s" min:"1ms" max:"1h" help:"From the signal until requests still in flight, streams and upgraded connections are cut off. Up to 2s more are for deregistering."`
}

// check says what is wrong with settings that are fine by themselves and don't
// fit together.
func (s *Settings) check() error {
	if s.AdvertiseHost != "" {
		entry := catalog.Instance{ID: "this", Host: s.AdvertiseHost, Port: 1, Weight: 1}
		if err := entry.Validate(); err != nil {
			return &SettingError{
				"ROLLCALL_ADVERTISE_HOST (--advertise-host)", s.AdvertiseHost,
				"an IP address (IPv6 without brackets) or a host name",
			}
		}
	}
	switch {
	case s.TLSCert != "" && s.TLSKey == "":
		return &SettingError{"ROLLCALL_TLS_KEY (--tls-key)", "", "the key of ROLLCALL_TLS_CERT, " + s.TLSCert}
	case s.TLSKey != "" && s.TLSCert == "":
		return &SettingError{"ROLLCALL_TLS_CERT (--tls-cert)", "", "the certificate of ROLLCALL_TLS_KEY, " + s.TLSKey}
	case s.TLSCallers != "" && s.TLSCert == "":
		return &SettingError{"ROLLCALL_TLS_CALLERS (--tls-callers)", s.TLSCallers, "none, or ROLLCALL_TLS_CERT besides: callers show a certificate over TLS only"}
	case s.TLSCallers != "" && s.TLSCA == "":
		return &SettingError{"ROLLCALL_TLS_CALLERS (--tls-callers)", s.TLSCallers, "none, or ROLLCALL_TLS_CA besides: the roots of the callers' certificates"}
	case s.Settle > s.SettleMax:
		return &SettingError{
			"ROLLCALL_SETTLE (--settle)", time.Duration(s.Settle).String(),
			"at most ROLLCALL_SETTLE_MAX, " + time.Duration(s.SettleMax).String(),
		}
	case s.SettleMax > s.DrainTimeout:
		return &SettingError{
			"ROLLCALL_SETTLE_MAX (--settle-max)", time.Duration(s.SettleMax).String(),
			"at most ROLLCALL_DRAIN_TIMEOUT, " + time.Duration(s.DrainTimeout).String(),
		}
	}
	return nil
}

// traffic returns the limits of the traffic ports; stream is 0 where answers
// are short.
func (s *Settings) traffic(stream time.Duration) web.Limits {
	return web.Limits{
		ReadHeaderTimeout: time.Duration(s.ReadHeaderTimeout),
		ReadTimeout:       time.Duration(s.ReadTimeout),
		WriteTimeout:      time.Duration(s.WriteTimeout),
		StreamTimeout:     stream,
		IdleTimeout:       time.Duration(s.IdleTimeout),
		MaxHeaderBytes:    int(s.MaxHeaderBytes),
		MaxConnections:    int(s.MaxConnections),
		MaxRequests:       int(s.MaxRequests),
		MaxStreams:        int(s.MaxStreams),
	}
}

// admin returns the limits of the admin port, which has few and known callers.
// A profile takes 30 s and sets a deadline of its own.
func admin() web.Limits {
	return web.Limits{
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		MaxConnections:    64,
	}
}
