"""Logging by structlog: lines for people on a terminal, JSON elsewhere, secrets nowhere.

Every line carries the pid and what is bound: request_id, reservation_id, computer, state.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import IO, Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from vcld import clock
from vcld.config.redaction import redact

#: Parts of names whose values are never shown.
_SECRET_NAMES = ("password", "passwd", "passphrase", "secret", "wrtpass", "privatekey", "token")
_SECRET_EXACT = frozenset({"pw", "pass", "xmlrpc_pass", "jabpass"})
#: A broken log file is complained of at most this often.
COMPLAIN_SECONDS = 60.0


def configure(
    *, level: str = "info", form: str = "auto", path: Path | None = None, process: str = "vcld"
) -> None:
    """Set up logging for this process and its children.

    Args:
        level: debug, info, warning or error.
        form: auto, console, json or vcld.
        path: The log file; None writes to stderr.
        process: Shown by the ``vcld`` format where no state is worked on.
    """
    stream = LogFile(path)
    if form == "auto":
        form = "console" if path is None and sys.stderr.isatty() else "json"
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_pid,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if form == "vcld":
        processors += [_add_caller(), structlog.processors.format_exc_info]
    elif form == "json":
        processors += [structlog.processors.format_exc_info]
    processors += [_hide_secrets, _renderer(form, process)]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=stream),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    _route_standard_logging()


def _renderer(form: str, process: str) -> Processor:
    if form == "console":
        return structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            pad_event_to=0,
            exception_formatter=structlog.dev.plain_traceback,
        )
    if form == "vcld":
        return _VcldLine(process)
    return structlog.processors.JSONRenderer(serializer=_to_json, default=str)


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options)


def _add_pid(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event["pid"] = os.getpid()
    return event


def _add_caller() -> Processor:
    wanted = structlog.processors.CallsiteParameter
    return structlog.processors.CallsiteParameterAdder(
        {wanted.FILENAME, wanted.FUNC_NAME, wanted.LINENO}
    )


def _is_secret_name(name: str) -> bool:
    name = name.lower()
    return name in _SECRET_EXACT or any(part in name for part in _SECRET_NAMES)


def _hide_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {key: _hide(key, value) for key, value in event.items()}


def _hide(name: str, value: Any) -> Any:
    if isinstance(name, str) and _is_secret_name(name) and value not in (None, "", True, False):
        return "***"
    if isinstance(value, dict):
        return {key: _hide(key, item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_hide("", item) for item in value]
    return value


class _VcldLine:
    """The Perl daemon's line: time|pid|request|reservation|state|file:sub|line|text."""

    def __init__(self, process: str) -> None:
        self._process = process

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> str:
        when = str(event.pop("timestamp"))[:19].replace("T", " ")
        prefix = "|".join(
            str(part)
            for part in (
                when,
                event.pop("pid"),
                event.pop("request_id", ""),
                event.pop("reservation_id", ""),
                event.pop("state", self._process),
                f"{event.pop('filename', '')}:{event.pop('func_name', '')}",
                event.pop("lineno", ""),
            )
        )
        level, text = event.pop("level"), event.pop("event")
        trace = event.pop("exception", "")
        facts = " ".join(f"{key}={value}" for key, value in event.items())
        mark = "---- WARNING ----\n" if level == "warning" else ""
        mark = "---- CRITICAL ----\n" if level in {"error", "critical"} else mark
        body = f"{mark}{text}{' ' if facts else ''}{facts}{chr(10) if trace else ''}{trace}"
        return "\n".join(f"{prefix}|{line}" for line in body.splitlines())


class LogFile:
    """Appends to the log; opens it anew after a rotation, and survives a full disk.

    Lines that cannot be written go to stderr, with a complaint once a minute.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._inode: tuple[int, int] | None = None
        self._complained_at = float("-inf")

    def write(self, text: str) -> None:
        """Write one line, with its line end, in one call and without any secret."""
        text = redact(text)
        if self._path is None:
            self._to_stderr(text)
            return
        try:
            file = self._open()
            file.write(text)
            file.flush()
        except OSError as err:
            self._file = None
            now = clock.monotonic()
            if now - self._complained_at >= COMPLAIN_SECONDS:
                self._complained_at = now
                self._to_stderr(f"the log {self._path} cannot be written: {err.strerror}\n")
            self._to_stderr(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def _open(self) -> IO[str]:
        assert self._path is not None
        try:
            found = os.stat(self._path)
            inode: tuple[int, int] | None = (found.st_dev, found.st_ino)
        except FileNotFoundError:
            inode = None
        if self._file is None or inode != self._inode:
            self._file = open(  # noqa: SIM115 - kept open for the life of the process
                self._path, "a", encoding="utf-8", errors="backslashreplace"
            )
            found = os.fstat(self._file.fileno())
            self._inode = (found.st_dev, found.st_ino)
        return self._file

    @staticmethod
    def _to_stderr(text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError):
            return  # nobody listens; the daemon goes on


class _ToStructlog(logging.Handler):
    """Lines of libraries that use the standard logging."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        method = log.error if record.levelno >= logging.ERROR else log.warning
        method("library message", library=record.name, text=record.getMessage())


def _route_standard_logging() -> None:
    logging.raiseExceptions = False
    logging.basicConfig(level=logging.WARNING, handlers=[_ToStructlog()], force=True)
