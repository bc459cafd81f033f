# The health check of Consul's container: consul operator raft list-peers.
operator = "read"
