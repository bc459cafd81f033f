# Prometheus can't register itself. It has no tag `prometheus`: it scrapes
# itself already, and would be scraped twice.
service {
  name    = "prometheus"
  id      = "prometheus"
  address = "prometheus"
  port    = 9090

  check {
    id       = "prometheus:ready"
    name     = "Prometheus is ready"
    http     = "http://prometheus:9090/-/ready"
    interval = "5s"
    timeout  = "2s"
  }
}
