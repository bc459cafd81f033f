package main

var consul = dashboard{
	title: "Rollcall: Consul",
	about: "Consul's servers and agents, by their own metrics.",
	rows: []row{
		{"At a glance", []panel{
			number("Leaders", count, "Servers that say that they lead: 1 in good times.", `sum(consul_server_isLeader)`),
			number("Healthy", count, "Whether autopilot finds all servers well: 1 or 0.", `max(consul_autopilot_healthy)`),
			number("Servers that may fail", count, "How many more servers can be lost; of a single one none.", `max(consul_autopilot_failure_tolerance)`),
			number("Services", count, "Names in the catalog.", `max(consul_state_services)`),
			number("Instances", count, "Entries in the catalog.", `max(consul_state_service_instances)`),
			number("Nodes", count, "Nodes in the catalog.", `max(consul_state_nodes)`),
		}},
		{"Raft", []panel{
			graph("Writes", events, "Entries of the log that are applied.",
				query{`rate(consul_raft_apply[$__rate_interval])`, "{{instance}}"}),
			graph("99th percentile of a commit", millis, "Time to write an entry to the log and the other servers; NaN without a write lately.",
				query{`consul_raft_commitTime{quantile="0.99"}`, "{{instance}}"}),
			graph("99th percentile of the last contact", millis, "Time since the leader heard of the others: under 200 ms in good times, NaN of a single server.",
				query{`consul_raft_leader_lastContact{quantile="0.99"}`, "{{instance}}"}),
			graph("Elections", count, "How often a server stood for election in the last 10 minutes.",
				query{`increase(consul_raft_state_candidate[10m])`, "{{instance}}"}),
		}},
		{"Questions", []panel{
			graph("Questions that are held", count, "Blocking queries that the servers hold until there is news.",
				query{`consul_rpc_queries_blocking`, "{{instance}}"}),
			graph("Requests to servers", perSecond, "Those that the servers get, and those of them that fail.",
				query{`rate(consul_rpc_request[$__rate_interval])`, "{{instance}}"},
				query{`rate(consul_rpc_request_error[$__rate_interval])`, "{{instance}} failed"}),
			graph("Requests of agents that fail", events, "Those to a server that failed, and those over the agent's limit.",
				query{`sum by (instance) (rate(consul_client_rpc_failed[$__rate_interval]))`, "{{instance}} failed"},
				query{`rate(consul_client_rpc_exceeded[$__rate_interval])`, "{{instance}} over the limit"}),
			graph("Over the servers' limits", count, "Requests over request_limits, while there were any in the last minute.",
				query{`sum by (instance) (consul_rpc_rate_limit_exceeded)`, "{{instance}}"}),
		}},
		{"Resources", []panel{
			graph("Memory", memory, "What Consul has allocated.",
				query{`consul_runtime_alloc_bytes`, "{{instance}}"}),
			graph("Goroutines", count, "Each held question has some.",
				query{`consul_runtime_num_goroutines`, "{{instance}}"}),
		}},
	},
}
