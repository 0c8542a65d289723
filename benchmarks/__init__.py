"""Benchmarks, as ``make bench`` runs them. What they do is in ``offhook.bench``."""
