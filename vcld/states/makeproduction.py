"""makeproduction: the reservation's image revision becomes the one everybody gets.

VCL daemon specification §8.5.
"""

from __future__ import annotations

from functools import partial

from vcld.errors import Blame, FatalProvisioningError
from vcld.states.outcome import Outcome
from vcld.states.work import Work
from vcld.store import images

#: The user has not connected: the computer can be handed out at once.
UNUSED = frozenset({"new", "reserved"})


def run(work: Work) -> Outcome:
    """Change the production revision, tell the owner and end the reservation.

    Raises:
        FatalProvisioningError: the revision is deleted.
    """
    work.step("makeproduction:change")
    revision = work.reservation.imagerevision
    if revision.deleted:
        raise FatalProvisioningError(
            f"image revision {revision.imagename} is deleted and cannot be put into production;"
            " undelete it or choose another revision",
            blame=Blame.NOBODY,
        )
    reloads = work.run(images.make_production, work.catalog, work.reservation)
    work.log.info("production revision changed", reloads=reloads)
    unused = work.grip.laststate in UNUSED
    return Outcome(
        reason=f"{work.reservation.imagerevision.imagename} is in production",
        request="deleted",
        computer="available" if unused else None,
        ending="deleted" if unused else "released",
        afterwards=(partial(work.notices.user, work.reservation, "production_imagerevision"),),
    )
