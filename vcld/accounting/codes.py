"""The numbers in the accounting tables, as OpenNebula 2.0 documents them."""

from __future__ import annotations

import enum


class VmState(enum.IntEnum):
    """``vm_pool.state``."""

    INIT = 0
    PENDING = 1
    HOLD = 2
    ACTIVE = 3
    STOPPED = 4
    SUSPENDED = 5
    DONE = 6
    FAILED = 7


class LcmState(enum.IntEnum):
    """``vm_pool.lcm_state``; anything but LCM_INIT only while the VM is ACTIVE."""

    LCM_INIT = 0
    PROLOG = 1
    BOOT = 2
    RUNNING = 3
    EPILOG = 11
    FAILURE = 14
    UNKNOWN = 16


class Reason(enum.IntEnum):
    """``history.reason``: why the stay on the host ended."""

    NONE = 0
    ERROR = 1
    STOP_RESUME = 2
    USER = 3
    CANCEL = 4


class HostState(enum.IntEnum):
    """``host_pool.state``."""

    INIT = 0
    MONITORING = 1
    MONITORED = 2
    ERROR = 3
    DISABLED = 4


#: A VM in one of these has come to its end.
ENDED = (VmState.DONE, VmState.FAILED)
#: Last second that an int(11) column holds: 2038-01-19 03:14:07 UTC.
LAST_SECOND = 2**31 - 1
#: ``reservation.id`` is a mediumint: VMs that were rebuilt from ``sublog`` are numbered from here.
FIRST_REBUILT = 2**24
