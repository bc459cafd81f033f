datacenter           = "dc1"
log_level            = "INFO"
disable_update_check = true

# A server that is stopped comes back on the same data: it doesn't leave.
leave_on_terminate = false

# 1 is what Consul advises for production; the default of 5 takes 8 s instead
# of 2 s to a leader after a restart.
performance {
  raft_multiplier = 1
}

# /v1/agent/metrics?format=prometheus is empty without a retention time, and
# gauges carry the host's name unless told otherwise.
telemetry {
  prometheus_retention_time = "60s"
  disable_hostname          = true
}
