"""From the faults of the vSphere API to the errors of vcld: whose fault, and may it pass?"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar

from pyVmomi import vim, vmodl

from vcld.errors import (
    BackendUnavailableError,
    Blame,
    FatalProvisioningError,
    ProvisioningError,
)

T = TypeVar("T")
LONGEST_TEXT = 400
#: Somebody else works on the same thing: it may be free in a moment.
BUSY = (
    vim.fault.TaskInProgress,
    vim.fault.ResourceInUse,
    vim.fault.FileLocked,
    vim.fault.ConcurrentAccess,
)
#: What was to be removed is not there.
GONE = (vmodl.fault.ManagedObjectNotFound, vim.fault.FileNotFound, vim.fault.NotFound)
#: The host lost touch with its vCenter, or is on its way out.
AWAY = (
    vim.fault.HostConnectFault,
    vmodl.fault.HostNotConnected,
    vmodl.fault.HostNotReachable,
    vmodl.fault.HostCommunication,
    vim.fault.NoHost,
)
FULL = (vim.fault.NoDiskSpace, vim.fault.InsufficientStorageSpace)
#: What the host cannot give now, whatever VM asks.
EXHAUSTED = (vim.fault.InsufficientResourcesFault, vmodl.fault.NotEnoughLicenses)
#: What is wrong with the host, its datastores or its networks, whatever VM asks.
#: ``InvalidState`` is a host's in maintenance mode.
OF_HOST = (
    vim.fault.InvalidState,
    vim.fault.InvalidDatastore,
    vim.fault.HostConfigFault,
    vim.fault.NoCompatibleHost,
    vim.fault.CannotAccessVmComponent,
    vim.fault.Timedout,
)
NO_SPACE = re.compile(r"no.?space|no more space|not enough space|extend swap file", re.IGNORECASE)
FORBIDDEN = (vim.fault.NoPermission, vim.fault.RestrictedVersion)


def describe(fault: Any) -> str:
    """A fault in a clause: its name, and its own words if it has any."""
    name = type(fault).__name__.rpartition(".")[2]
    texts = [getattr(fault, "msg", None) or "", *_messages(fault)]
    said = " ".join(dict.fromkeys(text.strip() for text in texts if text.strip()))
    return f"{name}: {said[:LONGEST_TEXT]}" if said else name


def _messages(fault: Any) -> list[str]:
    """What the host says below the fault: there is the reason why a VM does not start."""
    return [str(one.message or "") for one in getattr(fault, "faultMessage", None) or ()]


def _is_full(fault: Any) -> bool:
    """True when there is no space; a start that lacks it says so in its messages only."""
    messages = getattr(fault, "faultMessage", None) or ()
    texts = [fault.msg or "", *(f"{one.key} {one.message}" for one in messages)]
    return isinstance(fault, FULL) or any(NO_SPACE.search(text) for text in texts)


def translate(fault: Any, what: str, blame: Blame = Blame.VMHOST) -> ProvisioningError:
    """The error for a fault; ``what`` is a sentence's beginning: "vm1 cannot be started"."""
    text = f"{what}: {describe(fault)}"
    if isinstance(fault, AWAY):
        return BackendUnavailableError(text)
    if _is_full(fault):
        return ProvisioningError(f"{what}: the datastore is full", blame=Blame.VMHOST)
    if isinstance(fault, (*EXHAUSTED, *OF_HOST)):
        return ProvisioningError(text, blame=Blame.VMHOST)
    if isinstance(fault, FORBIDDEN):
        return FatalProvisioningError(
            f"{text}; the profile's user needs more rights, or the host's licence allows only"
            " reading",
            blame=Blame.VMHOST,
        )
    if isinstance(fault, vim.fault.FileFault) and blame is Blame.COMPUTER:
        return ProvisioningError(text, blame=Blame.VMHOST)  # the VM is not what cannot be read
    return ProvisioningError(text, blame=blame)


def translated(method: Callable[..., T]) -> Callable[..., T]:
    """Let no fault of the API leave a provisioner: each is an error that says whose it is.

    Faults that a step knows how to take have been taken before.
    """

    @functools.wraps(method)
    def inner(self: Any, *args: Any, **facts: Any) -> T:
        try:
            return method(self, *args, **facts)
        except vmodl.MethodFault as fault:
            name = self.reservation.computer.shortname
            what = f"the VM host refuses a call of {method.__name__} for {name}"
            raise translate(fault, what) from fault

    return inner
