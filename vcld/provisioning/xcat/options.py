"""What a site may set about xCAT: rows of VCL's ``variable`` table."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields

#: Values of ``capture_method``, besides ``runimage=TASK``.
CAPTURE_METHODS = ("image", "sysclone", "diskless")
#: Where xCAT is installed, unless the environment's XCATROOT says otherwise.
DEFAULT_ROOT = "/opt/xcat"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Each is the variable ``xcat|NAME``, or for one management node ``xcat|NAME|HOST``.

    Times are seconds. 0 and nonsense count as not set.
    """

    #: Other errors of a power command before it fails, and timeouts, counted apart.
    rpower_error_limit: int = 3
    timeout_error_limit: int = 5
    #: Blades that are loaded at the same time, and the longest wait for a place among them.
    throttle: int = 10
    throttle_wait: int = 1800
    #: Limit for one command. ``nodeset`` may build an initial ramdisk.
    command_timeout: int = 180
    #: How long work goes on while xCAT's daemon does not answer.
    daemon_patience: int = 600
    #: Pause between two looks at nodes that are loaded; one command serves all of them.
    poll: float = 5.0
    #: How long the power may take to change.
    power_wait: float = 60.0
    #: From the power cycle to the first sign of life.
    boot_wait: float = 600.0
    #: Longest time without any change; not set: the image's reload time, at least 10 minutes.
    no_progress: float = 0.0
    #: Longest time of one attempt; not set: an hour, or twice the time above if that is more.
    load_limit: float = 0.0
    #: Longest pause before a repetition, multiplied by the number of the attempt.
    retry_pause: float = 2.0
    #: File with the messages of the DHCP server, ``journal``, or ``none``; not set: found out.
    syslog: str = ""
    #: ``image`` (older xCAT), ``sysclone`` or ``diskless`` (imgcapture), or ``runimage=TASK``.
    capture_method: str = "image"
    capture_poll: float = 30.0
    capture_no_progress: float = 1200.0
    capture_limit: float = 6 * 3600.0
    #: Machines on which xCAT's commands run, by SSH, the first that answers; not set: this one.
    servicenode: str = ""
    root: str = field(default=DEFAULT_ROOT)
    #: Variables that are set to what they cannot be, a sentence each.
    nonsense: tuple[str, ...] = ()

    @classmethod
    def read(cls, variables: Callable[[str], str | None], host: str) -> Options:
        """Read the variables as they hold for a management node."""
        found: dict[str, str | int | float] = {}
        nonsense = []
        for item in fields(cls):
            text = _find(variables, item.name, host)
            default = item.default
            if isinstance(default, str):
                found[item.name] = text or default
            elif isinstance(default, int | float):
                value = _number(text, least=1 if isinstance(default, int) else 0)
                if value:
                    found[item.name] = int(value) if isinstance(default, int) else value
                elif text not in {"", "0"}:
                    nonsense.append(f"variable xcat|{item.name}: {text!r} counts as not set")
        problem = capture_problem(str(found["capture_method"]))
        nonsense += [problem] if problem else []
        environ_root = os.environ.get("XCATROOT")
        if environ_root:
            found["root"] = environ_root
        return cls(**found, nonsense=tuple(nonsense))  # type: ignore[arg-type]


def capture_problem(method: str) -> str | None:
    """Why the variable ``capture_method`` cannot be what it is, or None."""
    if method in CAPTURE_METHODS or method.startswith("runimage="):
        return None
    known = ", ".join(CAPTURE_METHODS)
    return f"variable xcat|capture_method: {method!r} is none of {known} and runimage=TASK"


def _find(variables: Callable[[str], str | None], name: str, host: str) -> str:
    # The last but one is an older order of the words that sites still have.
    for key in (f"xcat|{name}|{host}", f"{host}|xcat|{name}", f"xcat|{name}"):
        text = (variables(key) or "").strip()
        if text:
            return text
    return ""


def _number(text: str, *, least: int) -> float:
    """The value, or 0 for what is no number, or no limit to anything."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value >= least and value > 0 else 0.0
