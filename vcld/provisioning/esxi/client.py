"""Reading properties and waiting for tasks: the two things that everything else is made of.

Waits use the PropertyCollector's updates: the server answers when something has changed, or
after some seconds with nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pyVmomi import vim, vmodl

from vcld import clock
from vcld.errors import (
    BackendUnavailableError,
    Blame,
    LoadTimeoutError,
    ProvisioningError,
    VcldError,
    WorkerStopped,
)
from vcld.provisioning.esxi import faults
from vcld.provisioning.esxi.session import Session
from vcld.waiting import Cancellation, pauses

collector = vmodl.query.PropertyCollector
#: The first waits are short, for a server that loses an update between two calls.
WAITS_SECONDS = (1, 1, 2, 3, 5)
TASK_SECONDS = 300.0
#: How long something that another works on may stay busy.
BUSY_SECONDS = 120.0
TASK_PATHS = ("info.state", "info.result", "info.error", "info.progress")
Properties = Mapping[str, Any]


class Client:
    """The API of one endpoint."""

    def __init__(self, session: Session) -> None:
        self.session = session

    @property
    def content(self) -> Any:
        return self.session.content

    def read(
        self, refs: Sequence[Any], paths: Mapping[type, Sequence[str]], *hops: Any
    ) -> dict[Any, Properties]:
        """Read properties of objects, and of those that ``hops`` lead to, in one call.

        ``paths`` says what of which type. Properties that are not set are not in the answer,
        and neither are objects that are gone: other workers remove theirs at any time.
        """
        while refs:
            try:
                return self._read(refs, paths, hops)
            except vmodl.fault.ManagedObjectNotFound as gone:
                left = [ref for ref in refs if ref != gone.obj]
                if len(left) == len(refs):
                    raise
                refs = left
        return {}

    def _read(
        self, refs: Sequence[Any], paths: Mapping[type, Sequence[str]], hops: Sequence[Any]
    ) -> dict[Any, Properties]:
        spec = collector.FilterSpec(
            objectSet=[collector.ObjectSpec(obj=ref, selectSet=list(hops)) for ref in refs],
            propSet=[
                collector.PropertySpec(type=type_, pathSet=list(names))
                for type_, names in paths.items()
            ],
        )
        reader = self.content.propertyCollector
        page = reader.RetrievePropertiesEx([spec], collector.RetrieveOptions())
        found: dict[Any, Properties] = {}
        while page is not None:
            for item in page.objects:
                found[item.obj] = {change.name: change.val for change in item.propSet}
            if not page.token:
                break
            page = reader.ContinueRetrievePropertiesEx(page.token)
        return found

    def read_one(self, ref: Any, *paths: str) -> Properties:
        """Read properties of one object; empty when it is gone."""
        return self.read([ref], {type(ref): paths}).get(ref, {})

    def watch(
        self, ref: Any, paths: Sequence[str], *, limit_seconds: float
    ) -> Iterator[Properties]:
        """Yield all that is known of an object, now and whenever it changes, up to the limit."""
        known: dict[str, Any] = {}
        deadline = clock.monotonic() + limit_seconds
        logins, token, made, empty = -1, "", None, 0
        reader = self.content.propertyCollector
        try:
            while True:
                if logins != self.session.logins or made is None:
                    made, token = self._make_filter(ref, paths), ""
                    logins = self.session.logins
                longest = WAITS_SECONDS[min(empty, len(WAITS_SECONDS) - 1)]
                left = max(0, min(longest, int(deadline - clock.monotonic()) + 1))
                options = collector.WaitOptions(maxWaitSeconds=left)
                try:
                    updates = reader.WaitForUpdatesEx(token, options)
                except (vmodl.query.InvalidCollectorVersion, vmodl.fault.ManagedObjectNotFound):
                    if not self.read_one(ref, *paths):
                        return
                    made = None
                    continue
                if updates is not None:
                    token = updates.version
                    known.update(_changes(updates, ref))
                else:
                    # Nothing for so long: make sure that no update was lost.
                    empty += 1
                    known.update(self.read_one(ref, *paths))
                yield known
                if clock.monotonic() >= deadline:
                    return
        finally:
            if made is not None and logins == self.session.logins:
                with contextlib.suppress(vmodl.MethodFault, ProvisioningError, WorkerStopped):
                    made.DestroyPropertyFilter()

    def run_task(
        self,
        begin: Callable[[], Any],
        what: str,
        *,
        blame: Blame = Blame.VMHOST,
        limit_seconds: float = TASK_SECONDS,
        on_progress: Callable[[int], None] = lambda percent: None,
    ) -> Any:
        """Begin a task and wait for its result; one that meets a busy thing is begun again.

        Args:
            begin: the call that returns the task.
            what: the beginning of a sentence about its failure: "vm1 cannot be started".
            blame: whom a failure of an unknown kind blames.
            limit_seconds: after that it is cancelled.
            on_progress: told of the percentage that is done.

        Raises:
            vmodl.MethodFault: what was asked for is gone (``faults.GONE``), or is there
                already: a matter for the caller.
            ProvisioningError: the task failed, or did not end in time.
        """
        deadline = clock.monotonic() + BUSY_SECONDS
        for pause in pauses(0.2, 5.0):
            try:
                task = begin()
                return self._await(task, what, limit_seconds, on_progress)
            except faults.BUSY as fault:
                if clock.monotonic() + pause > deadline:
                    raise faults.translate(fault, what, blame) from fault
            except (*faults.GONE, vim.fault.InvalidPowerState, vim.fault.FileAlreadyExists):
                raise
            except vmodl.MethodFault as fault:
                raise faults.translate(fault, what, blame) from fault
            self.session.cancellation.wait(pause)
        raise AssertionError  # pauses never end

    def _await(
        self, task: Any, what: str, limit_seconds: float, on_progress: Callable[[int], None]
    ) -> Any:
        info = self.read_one(task, *TASK_PATHS)
        try:
            if info.get("info.state") not in {"success", "error"}:
                for info in self.watch(task, TASK_PATHS, limit_seconds=limit_seconds):
                    if info.get("info.state") in {"success", "error"}:
                        break
                    if info.get("info.progress") is not None:
                        on_progress(info["info.progress"])
        except (VcldError, WorkerStopped) as err:
            is_away = isinstance(err, BackendUnavailableError) and err.blame is Blame.VMHOST
            if not (is_away or self.session.is_leaving):
                self._cancel(task)
            raise
        state = info.get("info.state")
        if state == "success":
            return info.get("info.result")
        if state == "error":
            raise info["info.error"]
        self._cancel(task)
        raise LoadTimeoutError(
            f"{what}: the task did not end within {limit_seconds:g} s", blame=Blame.VMHOST
        )

    def _cancel(self, task: Any) -> None:
        """Tell the server that nobody waits for the task any more. Never raises."""
        waits = self.session.waits
        before, waits.cancellation = waits.cancellation, Cancellation()
        try:
            task.CancelTask()
        except (vmodl.MethodFault, ProvisioningError):
            return  # it has just ended, or cannot be cancelled
        finally:
            waits.cancellation = before

    def _make_filter(self, ref: Any, paths: Sequence[str]) -> Any:
        spec = collector.FilterSpec(
            objectSet=[collector.ObjectSpec(obj=ref)],
            propSet=[collector.PropertySpec(type=type(ref), pathSet=list(paths))],
        )
        return self.content.propertyCollector.CreateFilter(spec, partialUpdates=False)


def hop(name: str, type_: type, path: str, *onward: str) -> Any:
    """A way from objects of a type over a property, and the names of the ways on from there."""
    return collector.TraversalSpec(
        name=name,
        type=type_,
        path=path,
        skip=False,
        selectSet=[collector.SelectionSpec(name=other) for other in onward],
    )


def _changes(updates: Any, ref: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in updates.filterSet:
        for item in one.objectSet:
            if item.obj == ref:
                found.update({change.name: change.val for change in item.changeSet})
    return found
