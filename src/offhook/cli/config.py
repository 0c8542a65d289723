"""Settings for commands: found, checked, and refused in words a person can act on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from offhook.cli.failures import ExitCode, Failure

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from offhook.settings import Settings

CONFIG = "OFFHOOK_CONFIG"


def load_settings(flags: Mapping[str, object] | None = None, config: Path | None = None) -> Settings:
    """Loads the settings.

    Args:
        flags: settings given as command-line flags; None leaves one to the environment and the file.
        config: the configuration file, if a flag names one; else ``OFFHOOK_CONFIG``, else ``offhook.toml``.

    Raises:
        Failure: the file is missing or broken, or a setting is not of its form.
    """
    import tomllib

    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from offhook.settings import Settings

    if config is not None:
        os.environ[CONFIG] = str(config)
    named = os.environ.get(CONFIG)
    if named is not None and not Path(named).is_file():
        raise Failure("settings", f"There is no configuration file {named}", ExitCode.USAGE)
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        text = "; ".join(_wrong(details) for details in error.errors())
        raise Failure("settings", text, ExitCode.USAGE) from error
    except tomllib.TOMLDecodeError as error:
        raise Failure("settings", f"{named or 'offhook.toml'}: {error}", ExitCode.USAGE) from error
    except (SettingsError, OSError, UnicodeDecodeError) as error:
        raise Failure("settings", str(error), ExitCode.USAGE) from error


def _wrong(details: ErrorDetails) -> str:
    name = ".".join(str(part) for part in details["loc"])
    if details["type"] == "extra_forbidden":
        return f"There is no setting {name}"
    message = details["msg"].removeprefix("Value error, ")
    return f"{name}: {message}" if name else message
