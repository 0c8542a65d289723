"""Codecs without I/O: bytes in, values out, and back. Nothing here imports the rest of the package."""
