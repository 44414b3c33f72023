"""Asking the web site to capture an image when an imaging session ends (§8.3)."""

from __future__ import annotations

from vcld.errors import ConfigError, ProvisioningError
from vcld.states.outcome import Outcome
from vcld.states.work import Work
from vcld.webapi import WebApi


def capture_at_end(work: Work) -> Outcome:
    """Let the web site turn the request into an image request; it finds it pending.

    When that fails, the request goes to maintenance, where nobody touches the disk.
    """
    try:
        accepted = WebApi.from_settings(work.settings).auto_capture(work.grip.requestid)
        reason = "the web site starts the capture" if accepted else "the web site refused"
    except (ProvisioningError, ConfigError) as err:
        accepted, reason = False, f"the web site could not be asked for the capture: {err}"
    if accepted:
        return Outcome(reason=reason)
    return Outcome(
        reason=reason,
        request="maintenance",
        computer="maintenance",
        entries=(("failed", reason),),
        failed=True,
    )
