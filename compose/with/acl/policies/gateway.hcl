# A service that calls two others.
service "gateway" { policy = "write" }
service "order" { policy = "read" }
service "user" { policy = "read" }
node_prefix "" { policy = "read" }
