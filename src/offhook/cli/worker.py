"""One of several serving processes, as their supervisor starts it: ``python -m offhook.cli.worker DESCRIPTOR``.

Settings come through the inherited socket, so that no secret is seen on a command line and a configuration file which
is broken meanwhile stops nobody who started with it.
"""

from __future__ import annotations

import sys

import msgspec

from offhook.cli.failures import ExitCode, Failure, failure_of, unexpected
from offhook.cli.supervise import Brief
from offhook.errors import OffhookError
from offhook.server.control import Failed, Link, Ready
from offhook.server.logs import get_logger
from offhook.settings import settled

logger = get_logger(__name__)


def main() -> None:
    """Serves until told to stop, or until the supervisor is gone."""
    try:
        link = Link(int(sys.argv[1]))
        brief = msgspec.json.decode(link.assignment.payload, type=Brief)
    except EOFError:
        sys.exit(int(ExitCode.REFUSED))
    except (IndexError, ValueError, OSError, msgspec.MsgspecError) as error:
        sys.stderr.write(f"offhook: only its supervisor starts a worker ({type(error).__name__})\n")
        sys.exit(int(ExitCode.USAGE))
    failed = _serve(link, brief)
    if failed is not None:
        link.report(failed)
        sys.exit(failed.exit_code)


def _serve(link: Link, brief: Brief) -> Failed | None:
    try:
        from offhook import app
        from offhook.cli.banner import text
        from offhook.server.info import ServeInfo

        def announce(info: ServeInfo) -> None:
            link.report(Ready(info.node, tuple(info.urls), text(info, brief.passwords, brief.as_json)))

        app.serve(settled(brief.settings), announce, link)
    except OffhookError as error:
        return _failed(failure_of(error.code, error.message))
    except OSError as error:
        return _failed(Failure("unreachable", f"The server cannot start: {error}", ExitCode.UNREACHABLE))
    except Exception as error:
        logger.exception("worker failed")
        return _failed(unexpected(error))
    return None


def _failed(failure: Failure) -> Failed:
    return Failed(failure.code, failure.message, int(failure.exit_code))


if __name__ == "__main__":
    main()
