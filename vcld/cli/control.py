"""``vcld retry`` and ``vcld cancel``: an operator's two levers."""

from __future__ import annotations

import argparse
from typing import Any

from vcld import service
from vcld.cli.output import print_json, say
from vcld.config import Settings
from vcld.errors import ExitCode
from vcld.store import levers
from vcld.store.catalog import load_catalog


class _Lever:
    """A command on one request; ``pull`` returns what it did as a sentence."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("request", type=int, help="id of the request")
        parser.add_argument("--json", action="store_true", help="print JSON")

    @classmethod
    def run(cls, options: argparse.Namespace, settings: Settings) -> int:
        sentence = service.connect(settings).run(
            lambda connection: cls.pull(connection, load_catalog(connection), options.request)
        )
        if options.json:
            print_json({"request": options.request, "done": sentence})
        else:
            say(f"{sentence}")
        return ExitCode.DONE

    @staticmethod
    def pull(connection: Any, catalog: Any, requestid: int) -> str:
        raise NotImplementedError


class Retry(_Lever):
    """Let a request be processed again, now and with fresh attempts."""

    pull = staticmethod(levers.retry)


class Cancel(_Lever):
    """End a request as the web site's End button would."""

    pull = staticmethod(levers.cancel)
