"""What the computer must know of its connect methods."""

from __future__ import annotations

from collections.abc import Sequence

from vcld.snapshot import ConnectMethod


def method_facts(methods: Sequence[ConnectMethod]) -> list[str]:
    """What must be known to close them again: a line each, of service, script and ports."""
    return [
        "|".join(
            (
                method.servicename or "",
                method.startupscript or "",
                " ".join(str(port) for port, protocol in method.ports if protocol == "TCP"),
            )
        )
        for method in methods
        if not method.disabled
    ]
