"""Topics, leases and commands among nodes. ``memory``: one process is the whole system."""
