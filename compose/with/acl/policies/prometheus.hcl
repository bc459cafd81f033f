# Prometheus: it finds its targets in the catalog, and scrapes the agent itself.
service_prefix "" { policy = "read" }
node_prefix "" { policy = "read" }
agent "consul" { policy = "read" }
