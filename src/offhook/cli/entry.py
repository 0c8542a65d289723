"""Where the command ``offhook`` begins: it says what to install if the command line itself cannot be imported.

``pip install offhook`` is the SDK alone, and brings this script without what it needs.
"""

from __future__ import annotations

import sys

CLI = 'The command line needs more than the SDK: pip install "offhook[cli]", for the server "offhook[server]"'


def main() -> None:
    """Runs the command line, or exits with 2 and one line if it is not installed."""
    try:
        import typer  # noqa: F401 - only to see whether it is there
    except ImportError:
        sys.stderr.write(f"offhook: {CLI}\n")
        sys.exit(2)
    from offhook.cli.main import main as run

    run()
