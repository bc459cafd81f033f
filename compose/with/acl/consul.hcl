# Beside compose/consul/*.hcl, and beside tokens.hcl, which acl.sh writes.
acl {
  enabled        = true
  default_policy = "deny"
}

# The API is HTTPS alone. It asks for no certificate of the caller: the token says who
# asks, and a browser has none. See docs/how-to/consul-tls.md for verify_incoming.
ports {
  http  = -1
  https = 8501
}

tls {
  defaults {
    ca_file         = "/consul/config/ca.pem"
    cert_file       = "/consul/config/server.pem"
    key_file        = "/consul/config/server-key.pem"
    verify_outgoing = true
  }
  internal_rpc {
    verify_incoming        = true
    verify_server_hostname = true
  }
}
