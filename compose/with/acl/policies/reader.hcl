# A program that calls services, and is none: a batch job, a person's machine.
service_prefix "" { policy = "read" }
node_prefix "" { policy = "read" }
