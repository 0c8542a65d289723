"""Benchmarks of this machine: what sessions, events and idle connections cost the server."""
