"""Kandy's clients: REST requests, and a socket on which they are told what happens."""
