"""What Kandy.js sends and reads: REST bodies, paths, credentials, notifications and keep-alives. No I/O."""
