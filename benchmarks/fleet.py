"""``python -m benchmarks.fleet``: one server of two is killed, and its clients come back to the other."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import uvloop

from offhook.bench.client import LoadFailed
from offhook.bench.fleet import Plan, measure_fleet, report
from offhook.bench.shared import BROKER_URL, DATABASE_URL, Servers, ServersMissing


def main() -> int:
    """Reads the command line and runs."""
    parser = argparse.ArgumentParser(prog="benchmarks.fleet", description="Kills a server; its clients come back.")
    parser.add_argument("--sessions", type=int, default=2000, help="on both servers together")
    parser.add_argument("--initial", type=float, default=1.0, help="seconds a client waits at most before it tries")
    parser.add_argument("--maximum", type=float, default=30.0, help="seconds to which that grows with each failure")
    parser.add_argument("--database-url", default=DATABASE_URL, help="a PostgreSQL server")
    parser.add_argument("--broker-url", default=BROKER_URL, help="a Redis server")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    given = parser.parse_args()
    plan = Plan(given.sessions, given.initial, given.maximum)
    try:
        with tempfile.TemporaryDirectory(prefix="offhook-fleet-") as folder:
            done = uvloop.run(measure_fleet(plan, Servers(given.database_url, given.broker_url), Path(folder)))
    except (LoadFailed, ServersMissing) as error:
        print(f"benchmarks.fleet: {error}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(done), indent=2) if given.json else report(done))
    return 0 if done.lost == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
