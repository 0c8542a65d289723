"""``python -m benchmarks``: what ``offhook bench`` does, with the same options."""

from __future__ import annotations

import argparse
import sys

from offhook.bench.report import SECTIONS, run
from offhook.bench.shared import BROKER_URL, DATABASE_URL, Servers


def main() -> int:
    """Reads the command line and runs."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measures this machine.")
    parser.add_argument("--quick", action="store_true", help="fewer sessions and rounds")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--only", choices=SECTIONS, help="one section instead of all")
    parser.add_argument("--database-url", default=DATABASE_URL, help="PostgreSQL, for the section cluster")
    parser.add_argument("--broker-url", default=BROKER_URL, help="Redis, for the section cluster")
    given = parser.parse_args()
    servers = Servers(given.database_url, given.broker_url)
    return run(given.quick, given.json, servers, [given.only] if given.only else SECTIONS)


if __name__ == "__main__":
    sys.exit(main())
