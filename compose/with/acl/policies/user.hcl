# A service: it registers itself.
service "user" { policy = "write" }
node_prefix "" { policy = "read" }
