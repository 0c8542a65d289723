"""``python -m benchmarks``: what ``offhook bench`` does, with the same options."""

from __future__ import annotations

import argparse
import sys

from offhook.bench.report import run


def main() -> int:
    """Reads the command line and runs."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measures this machine.")
    parser.add_argument("--quick", action="store_true", help="fewer sessions and rounds")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    return run(arguments.quick, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
