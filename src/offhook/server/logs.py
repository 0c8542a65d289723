"""Logs: structured, to standard error, free of secrets, one entry a line that no client can forge.

Both structlog and the standard library's loggers go through the same processors. The last of them before the
renderer goes over everything that was built, tracebacks included: it hides secrets by the name of their key
and by their look in texts, cuts what is too long and escapes control characters.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Collection, Mapping, MutableMapping
from itertools import islice
from typing import TextIO

import structlog
from structlog.typing import FilteringBoundLogger, Processor, WrappedLogger

HIDDEN = "[hidden]"
MAX_TEXT = 8192
"""Characters kept of one text; tracebacks may have four times as many."""
MAX_DEPTH = 6
MAX_ITEMS = 100

_NAMES = (
    r"pass[_-]?(?:word|wd|phrase)|secret|token|authorization|api[_-]?key|auth[_-]?params|grant|cookie"
    r"|credentials?|private[_-]?key"
)
_SECRET_KEY = re.compile(_NAMES, re.IGNORECASE)
_SECRET_TEXTS = (
    # name=value and "name": value, in query strings, JSON, representations and headers; a quoted value goes
    # up to its closing quote, a document or list to the end of the line
    re.compile(
        rf"""((?:{_NAMES})[\w.-]{{0,40}}(?:\\?["'])?\s*(?:[:=]|%3[aAdD])\s*)"""
        r"""(?:(?:Bearer|Basic|Digest|Token)\s+[^\s"',;]+|b?\\?"(?:[^"\\]|\\.)*(?:\\?"|\Z)"""
        r"""|b?'(?:[^'\\]|\\.)*(?:'|\Z)|[\[{][^\n]*|[^\s"'&;,}\])<>]+)""",
        re.IGNORECASE,
    ),
    re.compile(r"""(\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{6,}""", re.IGNORECASE),
    re.compile(r"""(://[^/\s:@"']*:)[^/\s@"']+(?=@)"""),  # the password in a URL
    re.compile(r"""()\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"""),  # a JSON web token
)
# A header whose value is a whole JSON document of secrets.
_SECRET_HEADER = re.compile(r"(stompx-auth-params\s*:\s*)[^\n\r]+", re.IGNORECASE)

# C0 (but the newline), DEL, C1, line separators, bidirectional overrides, lone surrogates
_CONTROLS = "\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROL = re.compile(rf"[\n{_CONTROLS}]")
_CONTROL_BUT_NEWLINE = re.compile(rf"[{_CONTROLS}]")


def configure_logging(level: str = "info", form: str = "console", stream: TextIO | None = None) -> None:
    """Sets logging up for the whole process; may be called again.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``; what is less is dropped. Libraries are
            heard from ``warning`` on, and below it only at ``debug``.
        form: ``console`` for people, ``json`` for one JSON object a line.
        stream: where to write; standard error by default.

    Raises:
        ValueError: the level or form is unknown.
    """
    if form not in ("console", "json"):
        raise ValueError(f"Unknown log format {form!r}")
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"Unknown log level {level!r}")
    output = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=output.isatty(), pad_event_to=0)
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(output),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shared, renderer],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(number if number < logging.INFO else max(number, logging.WARNING))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(logging.NOTSET)


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger for the module ``name``."""
    logger: FilteringBoundLogger = structlog.get_logger(name)
    return logger


def redact(logger: WrappedLogger, method: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
    """The structlog processor that makes an entry safe to write.

    Returns:
        The entry with secrets hidden, texts cut and control characters escaped; every value in it is a JSON
        value.
    """
    safe: dict[str, object] = {}
    for key, value in event.items():
        name = hide_text(key)
        if key == "exception":
            safe[name] = _traceback(str(value))
        else:
            safe[name] = _hide(key, value, 0)
    return safe


def hide_text(text: str) -> str:
    """The text without secrets and control characters."""
    return _CONTROL.sub(_escape, _without_secrets(text, MAX_TEXT))


def _hide(key: str, value: object, depth: int) -> object:
    if value is None or isinstance(value, bool):
        return value
    if key and _SECRET_KEY.search(key):
        return HIDDEN
    if isinstance(value, int | float):
        return value
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _structure(value, depth + 1) if depth < MAX_DEPTH else "…"
    return hide_text(_text(value))


def _structure(value: Mapping[object, object] | Collection[object], depth: int) -> object:
    if isinstance(value, Mapping):
        pairs = islice(value.items(), MAX_ITEMS)
        return {hide_text(_text(key)): _hide(_text(key), item, depth) for key, item in pairs}
    items = list(islice(value, MAX_ITEMS))
    if len(items) == 2 and isinstance(items[0], str | bytes):
        # A pair, such as a header: its name tells whether its value is a secret.
        return [hide_text(_text(items[0])), _hide(_text(items[0]), items[1], depth)]
    return [_hide("", item, depth) for item in items]


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray):
        return value[: MAX_TEXT + 1].decode("utf-8", "backslashreplace")
    try:
        return str(value) if isinstance(value, BaseException) else repr(value)
    except Exception:  # a log entry must never fail by what it shows
        return f"<{type(value).__name__}>"


def _traceback(text: str) -> str:
    """A traceback whose further lines are indented, so that none looks like an entry of the log."""
    safe = _CONTROL_BUT_NEWLINE.sub(_escape, _without_secrets(text, MAX_TEXT * 4))
    return safe.replace("\n", "\n    ")


def _without_secrets(text: str, limit: int) -> str:
    if len(text) > limit:
        text = text[:limit] + "…"
    text = _SECRET_HEADER.sub(rf"\1{HIDDEN}", text)
    for pattern in _SECRET_TEXTS:
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return text


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
