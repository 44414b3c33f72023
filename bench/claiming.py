"""How many claims a second one node makes, without the fork."""

from __future__ import annotations

import time

from bench.harness import Bench, insert_many
from vcld.schema.engine import Database
from vcld.store import candidates, claims
from vcld.store.catalog import load_catalog
from vcld.supervisor.dispatch import BATCH


def claims_a_second(bench: Bench, count: int = 2000) -> float:
    """Claim ``count`` requests in the supervisor's batches, each committed."""
    with bench.site(count + 1) as site:
        insert_many(site, "new", count)
        database = Database(site.engine)
        catalog = database.run(load_catalog)
        started = time.perf_counter()
        for first in range(1, count + 1, BATCH):
            ids = list(range(first, min(first + BATCH, count + 1)))
            rows = database.run(
                lambda c, ids=ids: candidates.load_candidates(c, catalog, 1, ids)  # type: ignore[misc]
            )
            database.run(lambda c, rows=rows: claims.claim(c, catalog, 1, "bench", rows))  # type: ignore[misc]
        return count / (time.perf_counter() - started)
