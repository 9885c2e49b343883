# One of three servers that elect a leader among them. The gossip key is no part of this file: CONSUL_ENCRYPT_KEY in the environment.
node_name        = "server3"
server           = true
bootstrap_expect = 3
retry_join       = ["consul-server1", "consul-server2", "consul-server3"]
# Inside the stack's own network; on the host only server1's HTTP port is open, on loopback.
client_addr      = "0.0.0.0"
ui_config { enabled = true }
telemetry { prometheus_retention_time = "60s" }
