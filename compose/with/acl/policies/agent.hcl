# The agent's own: its node, and the service that its configuration registers.
node "consul" { policy = "write" }
service "prometheus" { policy = "write" }
