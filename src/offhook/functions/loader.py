"""Importing the module that holds the applications' functions."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from offhook.errors import InvalidInput, OffhookError
from offhook.functions.registry import Registry, collecting


def load_functions(reference: str, base: Path | None = None) -> Registry:
    """Imports a module and returns the functions it bound with ``on``.

    The folder that holds the module goes to the front of the import path, so that it can import its
    neighbours. A module that was imported before is imported anew.

    Args:
        reference: a dotted module name (``functions``, ``shop.auth``) or the path of a ``.py`` file.
        base: the folder that names and relative paths start from, usually the configuration file's; the
            working directory unless given.

    Raises:
        InvalidInput: there is no such module, importing it failed (the message names file and line), it bound
            two functions to the same place, or it bound none.
    """
    base = (base or Path.cwd()).resolve()
    registry = Registry()
    with collecting(registry):
        if reference.endswith(".py"):
            _from_path(reference, base)
        else:
            _from_name(reference, base)
    if not registry:
        raise InvalidInput(
            f"functions: {reference} binds no function; decorate one with @on.user_attempted_start_session",
            "functions",
        )
    return registry


def _from_path(reference: str, base: Path) -> ModuleType:
    """Imports a file as a module named like the file. Raises as `load_functions` does."""
    path = (base / Path(reference).expanduser()).resolve()
    if not path.is_file():
        raise InvalidInput(f"functions: there is no file {path}", "functions")
    _put_on_path(path.parent)
    # A name that no import statement can spell keeps the file from shadowing a module of the same name.
    name = f"offhook-functions:{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InvalidInput(f"functions: {path} is not a Python file", "functions")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise _failure(reference, error, path.parent) from error
    return module


def _from_name(reference: str, base: Path) -> ModuleType:
    """Imports a module by its dotted name. Raises as `load_functions` does."""
    if not all(part.isidentifier() for part in reference.split(".")):
        raise InvalidInput(
            f"functions: {reference!r} is neither a module's name nor the path of a .py file", "functions"
        )
    _put_on_path(base)
    for name in [name for name in sys.modules if name == reference or name.startswith(f"{reference}.")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    try:
        return importlib.import_module(reference)
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (reference == error.name or reference.startswith(f"{error.name}.")):
            raise InvalidInput(f"functions: there is no module {error.name} in {base}", "functions") from error
        raise _failure(reference, error, base) from error
    except BaseException as error:  # sys.exit() in a module is a mistake to report, not a wish to honour
        raise _failure(reference, error, base) from error


def _put_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _failure(reference: str, error: BaseException, folder: Path) -> InvalidInput:
    """The error for people: which line of the application's code was running, and what went wrong there."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        place = f"{error.filename}, line {error.lineno}"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [frame for frame in frames if Path(frame.filename).is_relative_to(folder)]
        place = f"{theirs[-1].filename}, line {theirs[-1].lineno}" if theirs else reference
    what = error.message if isinstance(error, OffhookError) else "".join(traceback.format_exception_only(error)[-1:])
    return InvalidInput(f"functions: importing {reference} failed at {place}: {what.strip()}", "functions")
