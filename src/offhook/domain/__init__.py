"""Values and rules: pure, synchronous, without I/O, and without knowledge of any protocol."""
