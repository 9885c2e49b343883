//! Grafana's own types, as it publishes them, hold for every board.
