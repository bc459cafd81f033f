package main

var service = dashboard{
	title:     "Rollcall: one service",
	about:     "What a service is asked and how it answers, what it has to do, and what it asks others.",
	variables: []variable{{"service", `label_values(rollcall_build_info, job)`}},
	rows: []row{
		{"Requests by HTTP", []panel{
			stacked("By route", perSecond, "Requests by the pattern of their route.",
				query{`sum by (method, route) (rate(http_server_request_duration_seconds_count{job="$service"}[$__rate_interval]))`, "{{method}} {{route}}"}),
			stacked("By status", perSecond, "Requests by the status of their answer; 499 had none, since the client left.",
				query{`sum by (code) (rate(http_server_request_duration_seconds_count{job="$service"}[$__rate_interval]))`, "{{code}}"}),
			graph("Median and 99th percentile", seconds, "Of the time until the end of an answer, for a stream until its beginning.",
				query{`histogram_quantile(0.5, sum by (le) (rate(http_server_request_duration_seconds_bucket{job="$service"}[$__rate_interval])))`, "median"},
				query{`histogram_quantile(0.99, sum by (le) (rate(http_server_request_duration_seconds_bucket{job="$service"}[$__rate_interval])))`, "p99"}),
		}},
		{"Instances", []panel{
			graph("Requests by instance", perSecond, "Requests that each instance answers.",
				query{`sum by (instance) (rate(http_server_request_duration_seconds_count{job="$service"}[$__rate_interval]))`, "{{instance}}"}),
			graph("99th percentile by instance", seconds, "Of the time until an answer: one that is slow stands out.",
				query{`histogram_quantile(0.99, sum by (instance, le) (rate(http_server_request_duration_seconds_bucket{job="$service"}[$__rate_interval])))`, "{{instance}}"}),
			graph("Memory by instance", memory, "Resident memory.",
				query{`process_resident_memory_bytes{job="$service"}`, "{{instance}}"}),
		}},
		{"Requests by gRPC", []panel{
			stacked("Calls", perSecond, "Empty unless the service is called by gRPC: calls by method and code.",
				query{`sum by (method, code) (rate(rpc_server_call_duration_seconds_count{job="$service"}[$__rate_interval]))`, "{{method}} {{code}}"}),
			graph("99th percentile", seconds, "Empty unless the service is called by gRPC: the time until the end of a call, by method.",
				query{`histogram_quantile(0.99, sum by (method, le) (rate(rpc_server_call_duration_seconds_bucket{job="$service"}[$__rate_interval])))`, "{{method}}"}),
		}},
		{"Load", []panel{
			graph("In flight and connections", count, "Requests being served, and connections that are open, of all instances.",
				query{`sum(http_server_requests_in_flight{job="$service"})`, "requests in flight"},
				query{`sum(http_server_connections_open{job="$service"})`, "open connections"}),
			graph("At work, and the limit", count, "Empty unless the service has a limit, which the gateway has not: requests at work, and how many may be, of all instances.",
				query{`sum by (kind) (http_server_requests_at_work{job="$service"})`, "{{kind}}s at work"},
				query{`sum by (kind) (http_server_requests_limit{job="$service"})`, "limit of {{kind}}s"}),
			graph("Shed", perSecond, "Empty unless the service has a limit, which the gateway has not: requests over it, answered 503 before any work.",
				query{`sum by (kind) (rate(http_server_requests_shed_total{job="$service"}[$__rate_interval]))`, "{{kind}}s"}),
			graph("Connections refused, handlers that panicked", events, "Connections over the limit, and handlers that panicked.",
				query{`sum(rate(http_server_connections_refused_total{job="$service"}[$__rate_interval]))`, "connections refused"},
				query{`sum(rate(http_server_panics_total{job="$service"}[$__rate_interval]))`, "panics"}),
		}},
		{"What it asks others", []panel{
			stacked("Requests by outcome", perSecond, "Empty unless the service asks others: its requests, all tries of one counted as one, by how they ended.",
				query{`sum by (peer, outcome) (rate(rollcall_client_request_duration_seconds_count{job="$service"}[$__rate_interval]))`, "{{peer}} {{outcome}}"}),
			graph("99th percentile", seconds, "Empty unless the service asks others: the time to the header of the answer, all tries included.",
				query{`histogram_quantile(0.99, sum by (peer, le) (rate(rollcall_client_request_duration_seconds_bucket{job="$service"}[$__rate_interval])))`, "{{peer}}"}),
			graph("Answers without asking, or as before", perSecond, "Empty unless the service stores: answers to a repeated Idempotency-Key, and those that order gave without asking user.",
				query{`sum(rate(rollcall_replayed_answers_total{job="$service"}[$__rate_interval]))`, "given before"},
				query{`sum(rate(rollcall_degraded_answers_total{job="$service"}[$__rate_interval]))`, "without asking user"}),
		}},
	},
}
