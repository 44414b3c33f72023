"""Logging by structlog: lines for people on a terminal, JSON elsewhere, secrets nowhere.

Every line carries the pid and what is bound: request_id, reservation_id, computer, state.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from vcld import clock
from vcld.config.redaction import HIDDEN, redact
from vcld.log_file import LogFile

#: Parts of names, without ``_`` and ``-``, whose values are never shown.
_SECRET_NAMES = (
    "password",
    "passwd",
    "passphrase",
    "secret",
    "wrtpass",
    "privatekey",
    "sshkey",
    "apikey",
    "keymaterial",
    "token",
    "credential",
    "authorization",
    "cookie",
)
_SECRET_EXACT = frozenset({"pw", "pass", "pwd", "xmlrpcpass", "jabpass"})
#: Values are not followed deeper than this; one that holds itself has no end.
_DEEPEST = 8


def configure(
    *, level: str = "info", form: str = "auto", path: Path | None = None, process: str = "vcld"
) -> None:
    """Set up logging for this process and its children; may be called again.

    Args:
        level: debug, info, warning or error.
        form: auto, console, json or vcld.
        path: The log file; None writes to stderr.
        process: Shown by the ``vcld`` format where no state is worked on.
    """
    on_terminal = path is None and sys.stderr is not None and sys.stderr.isatty()
    if form == "auto":
        form = "console" if on_terminal else "json"
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_head,
        structlog.processors.format_exc_info,
    ]
    if form == "vcld":
        processors.insert(0, _caller())
    if form != "json":
        processors.append(_show_controls)
    processors += [_hide_secrets, _renderer(form, process, colors=on_terminal)]
    _sink.use(path)
    _sink.tell_gap = functools.partial(_gap_line, processors)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(file=_sink),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    _route_standard_logging()


def _renderer(form: str, process: str, *, colors: bool) -> Processor:
    if form == "console":
        return structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=structlog.dev.plain_traceback
        )
    if form == "vcld":
        return _VcldLine(process)
    return structlog.processors.JSONRenderer(serializer=_to_json, default=str)


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options)


def _add_head(_: WrappedLogger, level: str, event: EventDict) -> EventDict:
    """When, how grave, what and by whom: first in the line. ``pid`` is always the writer's."""
    when = clock.utc_now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
    event["pid"] = os.getpid()
    level = "error" if level == "exception" else level
    return {"timestamp": when, "level": level, "event": event.pop("event", ""), **event}


def _caller() -> Processor:
    wanted = structlog.processors.CallsiteParameter
    return structlog.processors.CallsiteParameterAdder(
        {wanted.FILENAME, wanted.FUNC_NAME, wanted.LINENO}
    )


#: Control characters, which a terminal would obey; a line end and a tab are none of them.
_CONTROLS = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in {9, 10}
}


def visible(text: str) -> str:
    """The text with its control characters spelled out: fit for a terminal."""
    return text.translate(_CONTROLS)


def _show_controls(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {
        key: visible(value) if isinstance(value, str) else value for key, value in event.items()
    }


def _is_secret_name(name: str) -> bool:
    plain = name.lower().replace("_", "").replace("-", "")
    return plain in _SECRET_EXACT or any(part in plain for part in _SECRET_NAMES)


def _hide_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Before rendering, which may break a value up or escape it beyond recognition."""
    return {key: _hide(key, value, _DEEPEST) for key, value in event.items()}


def _hide(name: str, value: Any, depth: int) -> Any:
    if value is None or value == "" or isinstance(value, bool):
        return value
    if _is_secret_name(name):
        return HIDDEN
    if isinstance(value, int | float):
        return value
    if isinstance(value, str):
        return redact(value)
    if depth and isinstance(value, dict):
        return {redact(str(key)): _hide(str(key), item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_hide("", item, depth - 1) for item in value]
    return redact(str(value))


class _VcldLine:
    """The Perl daemon's line: time|pid|request|reservation|state|file:sub|line|text.

    The time is local, as tools that read these lines expect it.
    """

    def __init__(self, process: str) -> None:
        self._process = process

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> str:
        del event["timestamp"]
        parts = (
            clock.utc_now().astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            event.pop("pid"),
            event.pop("request_id", ""),
            event.pop("reservation_id", ""),
            event.pop("state", self._process),
            f"{event.pop('filename', '')}:{event.pop('func_name', '')}",
            event.pop("lineno", ""),
        )
        level, text = event.pop("level"), event.pop("event")
        trace = event.pop("exception", "")
        facts = [f"{key}={value}" for key, value in event.items()]
        lines = " ".join([str(text), *facts]).splitlines() + trace.splitlines()
        if level in {"warning", "error", "critical"}:
            lines.insert(0, f"---- {'WARNING' if level == 'warning' else 'CRITICAL'} ----")
        prefix = "|".join(map(str, parts))
        return "\n".join(f"{prefix}|{line}" for line in lines)


def _gap_line(processors: list[Processor], lines: int) -> str:
    event: Any = {"event": "the log has a gap: it could not be written", "lines": lines}
    for processor in processors:
        event = processor(None, "error", event)
    return f"{event}\n"


#: Where all loggers of this process write, those made before a change too.
_sink = LogFile()


class _ToStructlog(logging.Handler):
    """Lines of libraries that use the standard logging."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError):
            text = str(record.msg)  # the library's own mistake
        log = structlog.get_logger()
        method = log.error if record.levelno >= logging.ERROR else log.warning
        method("library message", library=record.name, text=text, exc_info=record.exc_info)


def _route_standard_logging() -> None:
    logging.raiseExceptions = False
    logging.basicConfig(level=logging.WARNING, handlers=[_ToStructlog()], force=True)
