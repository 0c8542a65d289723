"""The client of Kandy's protocol; :mod:`offhook.kandy` is its front door."""
