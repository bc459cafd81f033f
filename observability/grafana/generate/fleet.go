package main

var fleet = dashboard{
	title: "Rollcall: the fleet",
	about: "Every service at a glance: is it there, how does it answer, how much of its error budget is left, what does it use.",
	rows: []row{
		{"At a glance", []panel{
			number("Instances that are scraped", count, "Targets whose last scrape worked, Consul and Prometheus included.",
				`count(up == 1)`),
			number("Targets that are down", count, "Targets whose last scrape failed.",
				`count(up == 0) or vector(0)`),
			number("Alerts that fire", count, "Those of Prometheus, whatever their severity.",
				`count(ALERTS{alertstate="firing"}) or vector(0)`),
			number("Requests a second", perSecond, "All that the gateway is asked.",
				`sum(rate(http_server_request_duration_seconds_count{job="gateway"}[$__rate_interval]))`),
			number("Errors", share, "Share of the gateway's answers with a status of 500 and above, over 5 minutes.",
				`sum(job_kind:server_errors:rate5m{job="gateway"}) / sum(job_kind:server_requests:rate5m{job="gateway"})`),
			number("99th percentile", seconds, "Of the time that the gateway takes for an answer, over 5 minutes.",
				`histogram_quantile(0.99, sum by (le) (job_kind_le:server_request_duration_seconds_bucket:rate5m{job="gateway"}))`),
		}},
		{"Services", []panel{
			graph("Requests", perSecond, "Requests that each service is asked, HTTP and gRPC, over 5 minutes.",
				query{`sum by (job) (job_kind:server_requests:rate5m)`, "{{job}}"}),
			graph("Errors", share, "Share of its answers that are errors (5xx, and gRPC's like), over 5 minutes.",
				query{`sum by (job) (job_kind:server_errors:rate5m) / sum by (job) (job_kind:server_requests:rate5m)`, "{{job}}"}),
			graph("99th percentile", seconds, "Of the time until an answer, by reads, writes and gRPC, over 5 minutes.",
				query{`job_kind:server_request_duration_seconds:p99_rate5m`, "{{job}} {{kind}}"}),
		}},
		{"Error budgets: 99.9 % without an error, 99 % within 250 ms", []panel{
			graph("Spent, over an hour", times, "How many times as fast as allowed the budget is spent; at 1 it is gone when the 30 days are. At 14.4 somebody is woken.",
				query{`job_slo:burn:rate1h`, "{{job}} {{slo}}"}),
			graph("Spent, over 6 hours", times, "How many times as fast as allowed the budget is spent. At 6 somebody is woken.",
				query{`job_slo:burn:rate6h`, "{{job}} {{slo}}"}),
			graph("Spent, over 3 days", times, "How many times as fast as allowed the budget is spent. Over 1 it does not last.",
				query{`job_slo:burn:rate3d`, "{{job}} {{slo}}"}),
		}},
		{"Instances", []panel{
			stacked("Instances", count, "Those that are scraped.",
				query{`count by (job) (up == 1)`, "{{job}}"}),
			stacked("In the catalog", count, "Entries by their state in Consul, as the services that call them know it; one for each port.",
				query{`max by (peer, state) (sum by (job, instance, node, peer, state) (rollcall_instances))`, "{{peer}} {{state}}"}),
			stacked("Versions", count, "Instances by the version that they run.",
				query{`count by (job, version) (rollcall_build_info)`, "{{job}} {{version}}"}),
		}},
		{"Resources", []panel{
			graph("Memory", memory, "Resident memory of the greatest instance of each service.",
				query{`max by (job) (process_resident_memory_bytes)`, "{{job}}"}),
			graph("CPU", count, "Cores that the instances of a service use together.",
				query{`sum by (job) (rate(process_cpu_seconds_total[$__rate_interval]))`, "{{job}}"}),
			graph("Goroutines", count, "Of the instance of each service that has most.",
				query{`max by (job) (go_goroutines)`, "{{job}}"}),
		}},
	},
}
