"""Use cases: check, store, publish. One file a noun."""
