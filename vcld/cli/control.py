"""``vcld retry`` and ``vcld cancel``: an operator's two levers."""

from __future__ import annotations

import argparse

import structlog
from sqlalchemy.engine import Connection

from vcld import service
from vcld.accounting.recorder import find_recorder
from vcld.cli.output import print_json, say
from vcld.config import Settings
from vcld.errors import ExitCode
from vcld.store import levers, reservations
from vcld.store.catalog import Catalog, load_catalog
from vcld.store.strangers import Here


class _Lever:
    """A command on one request; ``pull`` returns what it did as a sentence."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("request", type=int, help="id of the request")
        parser.add_argument("--json", action="store_true", help="print JSON")

    @classmethod
    def run(cls, options: argparse.Namespace, settings: Settings) -> int:
        def work(connection: Connection) -> str:
            here = Here(settings.fqdn, settings.processname)
            sentence = cls.pull(connection, load_catalog(connection), options.request, here)
            cls.record(connection, settings, options.request)
            return sentence

        sentence = service.connect(settings).run(work)
        if options.json:
            print_json({"request": options.request, "done": sentence})
        else:
            say(f"{sentence}")
        return ExitCode.DONE

    @staticmethod
    def pull(connection: Connection, catalog: Catalog, requestid: int, here: Here) -> str:
        raise NotImplementedError

    @staticmethod
    def record(connection: Connection, settings: Settings, requestid: int) -> None:
        """What the accounting is to know of it."""


class Retry(_Lever):
    """Let a request be processed again, now and with fresh attempts."""

    pull = staticmethod(levers.retry)


class Cancel(_Lever):
    """End a request as the web site's End button would."""

    @staticmethod
    def pull(connection: Connection, catalog: Catalog, requestid: int, here: Here) -> str:
        """The same wherever it is asked."""
        return levers.cancel(connection, catalog, requestid)

    @staticmethod
    def record(connection: Connection, settings: Settings, requestid: int) -> None:
        ids, _ = reservations.of_request(connection, requestid)
        recorder = find_recorder(connection, settings.accounting_schema, structlog.get_logger())
        recorder.cancel(connection, ids)
