"""Block allocations: computers for a class, prepared before it starts (specification §4).

The web site chooses the computers and makes the reload requests; the daemon asks it to, in
time, and clears up afterwards. Everything here may be repeated.
"""

from __future__ import annotations

from typing import Any

from vcld.config import Settings
from vcld.errors import ConfigError, ProvisioningError
from vcld.messages.notices import Notices
from vcld.schema.engine import Database
from vcld.snapshot import ManagementNode
from vcld.store import blocks
from vcld.store import notices as given_notices
from vcld.store.blocks import BlockAction, DueBlock
from vcld.waiting import Cancellation, wait_until
from vcld.webapi import BlockResult, WebApi

#: The web site is asked so often, with this pause, until it has found all computers.
ATTEMPTS = 6
PAUSE_SECONDS = 5.0


def process(
    settings: Settings,
    database: Database,
    node: ManagementNode,
    block: DueBlock,
    cancellation: Cancellation,
    log: Any,
) -> bool:
    """Do what a block allocation asks for. False when it must be tried again later."""
    log = log.bind(block_request_id=block.blockrequestid, block_time_id=block.blocktimeid)
    if block.action is BlockAction.EXPIRE:
        if database.run(lambda c: blocks.complete(c, block.blockrequestid)):
            log.info("block allocation expired")
        return True
    timeid = block.blocktimeid
    assert timeid is not None
    if block.action is BlockAction.END:
        if database.run(lambda c: blocks.end(c, timeid)):
            log.info("block time ended")
        return True
    if not database.run(lambda c: blocks.is_still_near(c, timeid)):
        return True  # somebody edited it while another one was worked on
    database.run(lambda c: blocks.set_processing(c, block.blockrequestid, processing=True))
    result, reason = None, "the web site could not be asked"
    try:
        result = _allocate(settings, timeid, block.machines, cancellation, log)
    except ConfigError as err:
        log.error("block allocation cannot be prepared", reason=str(err))
        reason = "the management node is not set up to ask the web site"
    finally:
        database.run(
            lambda c: blocks.note_start(c, block.blockrequestid, timeid, done=result is not None)
        )
    notices = Notices(settings, database)
    if result is None:
        if database.run(lambda c: given_notices.is_first_of_block(c, timeid)):
            notices.block_waits(node, block, reason)
        return False
    short = result.allocated < block.machines and result.status != "completed"
    if short:
        log.error("block allocation is short of computers", allocated=result.allocated)
    else:
        log.info("block allocation prepared", allocated=result.allocated)
    notices.block_owner(node, block, result, short=short)
    return True


def _allocate(
    settings: Settings, timeid: int, machines: int, cancellation: Cancellation, log: Any
) -> BlockResult | None:
    """Ask the web site until it has allocated all; None when it could not be asked."""
    api = WebApi.from_settings(settings)
    best: BlockResult | None = None
    asked = 0

    def enough() -> bool:
        nonlocal best, asked
        asked += 1
        try:
            result = api.process_block_time(timeid)
        except ProvisioningError as err:
            log.warning("the web site could not be asked", reason=str(err))
        else:
            best = result
        done = best is not None and (best.allocated >= machines or best.status == "completed")
        return done or asked >= ATTEMPTS

    wait_until(
        enough,
        cancellation,
        limit_seconds=ATTEMPTS * (PAUSE_SECONDS + settings.xmlrpc_timeout_seconds),
        first_pause_seconds=PAUSE_SECONDS,
        longest_pause_seconds=PAUSE_SECONDS,
    )
    return best
