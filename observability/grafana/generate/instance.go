package main

var instance = dashboard{
	title: "Rollcall: one instance",
	about: "One process: what it answers, what it uses, what it knows, and what is known of it.",
	variables: []variable{
		{"service", `label_values(rollcall_build_info, job)`},
		{"instance", `label_values(rollcall_build_info{job="$service"}, instance)`},
	},
	rows: []row{
		{"At a glance", []panel{
			number("Up", count, "Whether its last scrape worked: 1 or 0.", `up{job="$service", instance="$instance"}`),
			number("Running for", seconds, "Time since the process started.",
				`time() - process_start_time_seconds{job="$service", instance="$instance"}`),
			number("Entries in Consul", count, "Its own entries that are registered, one for each port.",
				`sum(rollcall_registration_state{job="$service", instance="$instance", state="registered"})`),
			number("Oldest snapshot", seconds, "Time since Consul last proved what it knows of the others.",
				`max(rollcall_snapshot_age_seconds{job="$service", instance="$instance"})`),
		}},
		{"Requests", []panel{
			stacked("By route", perSecond, "Requests by the pattern of their route.",
				query{`sum by (method, route) (rate(http_server_request_duration_seconds_count{job="$service", instance="$instance"}[$__rate_interval]))`, "{{method}} {{route}}"}),
			stacked("By status", perSecond, "Requests by the status of their answer.",
				query{`sum by (code) (rate(http_server_request_duration_seconds_count{job="$service", instance="$instance"}[$__rate_interval]))`, "{{code}}"}),
			graph("Median and 99th percentile", seconds, "Of the time until the end of an answer.",
				query{`histogram_quantile(0.5, sum by (le) (rate(http_server_request_duration_seconds_bucket{job="$service", instance="$instance"}[$__rate_interval])))`, "median"},
				query{`histogram_quantile(0.99, sum by (le) (rate(http_server_request_duration_seconds_bucket{job="$service", instance="$instance"}[$__rate_interval])))`, "p99"}),
			graph("In flight and connections", count, "Requests being served, and connections that are open.",
				query{`http_server_requests_in_flight{job="$service", instance="$instance"}`, "requests in flight"},
				query{`http_server_connections_open{job="$service", instance="$instance"}`, "open connections"}),
		}},
		{"What it knows of others, and Consul of it", []panel{
			graph("Age of its snapshots", seconds, "Time since Consul proved the set of each service in use; some 10 s in good times.",
				query{`rollcall_snapshot_age_seconds{job="$service", instance="$instance"}`, "{{peer}}"}),
			stacked("Its entries by state", count, "Its own entries in Consul.",
				query{`rollcall_registration_state{job="$service", instance="$instance"}`, "{{state}}"}),
			stacked("Its tries by outcome", perSecond, "Empty unless it asks other services: its tries at their instances, by how they ended.",
				query{`sum by (peer, outcome) (rate(rollcall_client_tries_total{job="$service", instance="$instance"}[$__rate_interval]))`, "{{peer}} {{outcome}}"}),
		}},
		{"The instances that it asks", []panel{
			graph("In flight", count, "Empty unless it asks other services: its requests that are the load of each of their instances.",
				query{`rollcall_endpoint_in_flight{job="$service", instance="$instance"}`, "{{peer}} {{peer_instance}}"}),
			graph("Connections", count, "Empty unless it asks other services: its open connections to each of their instances.",
				query{`rollcall_endpoint_connections{job="$service", instance="$instance"}`, "{{peer}} {{peer_instance}}"}),
			graph("Out of use", count, "Empty unless it asks other services: the instances that it leaves out for failing.",
				query{`rollcall_endpoint_out{job="$service", instance="$instance"}`, "{{peer}} {{peer_instance}}"}),
		}},
		{"Resources", []panel{
			graph("Memory", memory, "Resident memory, and what of it is Go's heap in use.",
				query{`process_resident_memory_bytes{job="$service", instance="$instance"}`, "resident"},
				query{`go_memstats_heap_inuse_bytes{job="$service", instance="$instance"}`, "heap in use"}),
			graph("CPU", count, "Cores in use.",
				query{`rate(process_cpu_seconds_total{job="$service", instance="$instance"}[$__rate_interval])`, "cores"}),
			graph("Goroutines and files", count, "Goroutines, and open file descriptors, of which each connection is one.",
				query{`go_goroutines{job="$service", instance="$instance"}`, "goroutines"},
				query{`process_open_fds{job="$service", instance="$instance"}`, "open files"}),
		}},
	},
}
