"""From settings to a running daemon, in the foreground or detached."""

from vcld.service.composition import connect, run
from vcld.service.shell import AlreadyRunningError, Shell, run_service

__all__ = ["AlreadyRunningError", "Shell", "connect", "run", "run_service"]
