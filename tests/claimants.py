"""Processes that all want the same requests at the same time."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence

from tests.site import Site
from vcld.schema.engine import Database, make_engine
from vcld.store import candidates, claims
from vcld.store.catalog import load_catalog
from vcld.store.grips import ClaimLostError


def ask_for_many(site: Site, count: int) -> list[int]:
    """New requests in two statements; their ids."""
    state = site.catalog.state_id("new")
    site.execute(
        "INSERT INTO request (stateid, laststateid, userid, start, end, daterequested)"
        f" SELECT {state}, {state}, 101, NOW(), NOW() + INTERVAL 1 HOUR, NOW()"
        f" FROM seq_1_to_{count}"
    )
    site.execute(
        "INSERT INTO reservation (requestid, computerid, imageid, imagerevisionid,"
        " managementnodeid, lastcheck) SELECT id, 1, 2, 21, 1, NULL FROM request"
    )
    with site.engine.begin() as c:
        return list(c.exec_driver_sql("SELECT id FROM request ORDER BY id").scalars())


def race(urls: Sequence[str], numbers: list[int]) -> list[list[int]]:
    """Claim each request by a process for each database; what each of them won."""
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[list[int]] = context.Queue()
    racers = [context.Process(target=_claim, args=(url, numbers, results)) for url in urls]
    for racer in racers:
        racer.start()
    won = [results.get(timeout=150) for _ in racers]
    for racer in racers:
        racer.join(10)
    return won


def _claim(url: str, numbers: list[int], results: multiprocessing.Queue[list[int]]) -> None:
    engine = make_engine(url)
    database = Database(engine, patience_seconds=60)
    catalog = database.run(load_catalog)
    won = []
    for number in numbers:
        try:
            rows = database.run(lambda c, n=number: candidates.load_candidates(c, catalog, 1, [n]))  # type: ignore[misc]
            due = [row for row in rows if row.claim is None and row.state == "new"]
            if due:
                database.run(lambda c, d=due: claims.claim(c, catalog, 1, str(os.getpid()), d))  # type: ignore[misc]
                won.append(number)
        except ClaimLostError:
            continue
    results.put(won)
    engine.dispose()
