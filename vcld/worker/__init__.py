"""A worker: a forked child that works on one claimed reservation and ends.

It leaves only through ``os._exit``, so that nothing of the parent runs twice. What it found
out is in the database before it ends; the exit code is for the log.
"""

from vcld.worker.life import run

__all__ = ["run"]
