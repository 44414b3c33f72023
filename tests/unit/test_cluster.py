"""Parts of a cluster, and whether all of them were claimed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vcld.errors import ReservationChangedError
from vcld.states import cluster
from vcld.store.loadlog import Entry


def parent(*, claimed: set[int], ended: set[int]) -> Any:
    """The work of reservation 1, whose request has 2 and 3 too."""
    return SimpleNamespace(
        grip=SimpleNamespace(requestid=7, state="new", is_parent=True, is_pending=True),
        reservation=SimpleNamespace(
            is_cluster=True, siblings=[SimpleNamespace(id=id_) for id_ in (1, 2, 3)]
        ),
        run=lambda _query, _requestid: claimed,
        log_rows=lambda names: [Entry(id_, names[0], "", 0) for id_ in sorted(ended)],
    )


def test_child_that_ended_before_its_parent_looked_was_claimed_with_it() -> None:
    """One whose rows are broken ends at once; beginning anew for it would go on without end."""
    cluster.begin(parent(claimed={1, 3}, ended={2}))


def test_reservation_that_came_after_the_claim_has_the_cluster_begun_anew() -> None:
    with pytest.raises(ReservationChangedError, match="request 7 got further reservations"):
        cluster.begin(parent(claimed={1, 3}, ended=set()))
