"""``python -m offhook``: the command line."""

from __future__ import annotations

from offhook.cli.entry import main

if __name__ == "__main__":
    main()
