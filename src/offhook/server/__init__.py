"""What carries the gateways: listeners, TLS, timers, health, logs, metrics and the orderly end."""
