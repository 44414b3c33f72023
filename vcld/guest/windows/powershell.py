"""PowerShell over SSH: the script on standard input, its data only as quoted text.

The command line holds a fixed beginning that reads the script; so nothing secret shows in a
process list or in the event log's command lines. Not run here.
"""

from __future__ import annotations

import base64
from typing import Any

from vcld.errors import RemoteError
from vcld.guest.linux.script import Facts, parse
from vcld.remote.remote import Remote

#: Every sign that PowerShell takes for a single quote ends the text unless it is doubled.
SINGLE_QUOTES = "'\u2018\u2019\u201a\u201b"
_BEGINNING = (
    "$ErrorActionPreference='Stop'; $ProgressPreference='SilentlyContinue';"
    "$reader=New-Object IO.StreamReader([Console]::OpenStandardInput(),[Text.Encoding]::UTF8);"
    "try { & ([ScriptBlock]::Create($reader.ReadToEnd())); exit 0 }"
    " catch { Write-Output ('vcld:error=' + ($_.Exception.Message -replace '\\s+',' ')); exit 1 }"
)


def quote(text: object) -> str:
    """A text as PowerShell reads it back unchanged.

    Raises:
        ValueError: it holds a NUL, which ends texts on the way.
    """
    value = str(text)
    if "\0" in value:
        raise ValueError("a text for PowerShell holds a NUL character")
    return "'" + "".join(c * 2 if c in SINGLE_QUOTES else c for c in value) + "'"


def array(*texts: object) -> str:
    """A list of texts."""
    return f"@({', '.join(quote(text) for text in texts)})"


def command() -> str:
    """The command line, the same for every script."""
    encoded = base64.b64encode(_BEGINNING.encode("utf-16-le")).decode("ascii")
    return f"powershell.exe -NoProfile -NonInteractive -EncodedCommand {encoded}"


def run(remote: Remote, script: str, log: Any, *, limit_seconds: float = 120) -> Facts:
    """Run a script and return its facts.

    Raises:
        RemoteError: it could not be run or failed; the message says at what.
    """
    result = remote.run(command(), stdin=script.encode(), limit_seconds=limit_seconds)
    facts = parse(result.output)
    for text in facts.all("warning"):
        log.warning("the computer reports", text=text)
    if result.status != 0:
        said = facts.find("error") or f"PowerShell ended with status {result.status}"
        raise RemoteError(f"{remote.endpoint.name}: {said}")
    return facts
