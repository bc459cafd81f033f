# A service that calls another one.
service "order" { policy = "write" }
service "user" { policy = "read" }
node_prefix "" { policy = "read" }
