"""One session with an ESXi host or a vCenter: logged in when needed, and again when it ended.

A call that the server cannot have begun (it refused the connection, answered 503, or did not
know the session) is repeated; so is one that only reads. Any other call whose answer is lost
ends in BackendUnavailableError: the work is then done over from its start, which every
operation here allows.
"""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator
from typing import Any
from xml.parsers.expat import ExpatError

from pyVmomi import SoapAdapter, vim, vmodl

from vcld import clock
from vcld.errors import (
    AuthenticationError,
    BackendUnavailableError,
    Blame,
    FatalProvisioningError,
    ProvisioningError,
    WorkerStopped,
)
from vcld.provisioning.esxi.endpoint import Endpoint
from vcld.provisioning.esxi.transport import CertificateError, Connection, Waits
from vcld.waiting import Cancellation, pauses

#: The API of ESXi 6.5, which every later version speaks too.
API_VERSION = "vim.version.version11"
LOGOUT_SECONDS = 3.0
#: Time to tidy up for work that is told to stop.
FAREWELL_SECONDS = 5.0
READING = (
    "Retrieve", "Fetch", "Query", "Find", "Search", "WaitForUpdates", "Create", "Destroy", "Refresh"
)  # fmt: skip
#: Calls that begin like one that reads, but change something.
CHANGING = frozenset({"CreateVM_Task", "Destroy_Task", "CreateSnapshot_Task"})
LOST = (OSError, http.client.HTTPException, ExpatError)


class _Stub(SoapAdapter.SoapStubAdapter):  # type: ignore[misc]
    """pyVmomi's stub on our own connections and with our own rules for repeating."""

    def __init__(self, session: Session) -> None:
        endpoint = session.endpoint
        super().__init__(host=endpoint.address, port=endpoint.port, version=API_VERSION)
        self.scheme = Connection
        self.schemeArgs = {"endpoint": endpoint, "waits": session.waits}
        self._session = session

    def InvokeMethod(  # noqa: N802 - pyVmomi's name
        self,
        mo: Any,
        info: Any,
        args: Any,
        outerStub: Any = None,  # noqa: N803
    ) -> Any:
        return self._session.invoke(super().InvokeMethod, mo, info, args)


class Session:
    """A session that takes care of itself."""

    def __init__(
        self, endpoint: Endpoint, cancellation: Cancellation, log: Any, *, patience_seconds: float
    ) -> None:
        self.endpoint = endpoint
        self.cancellation = cancellation
        self.waits = Waits(cancellation)
        #: Counts logins: filters and views end with the session that made them.
        self.logins = 0
        #: When the server was last called, by ``clock.monotonic``.
        self.called_at = 0.0
        #: True in the work's last seconds: tasks that are begun then go on without it.
        self.is_leaving = False
        self._log = log
        self._patience_seconds = patience_seconds
        self._stub: _Stub | None = None
        self._content: Any = None

    @property
    def content(self) -> Any:
        """The service's root; logs in at first use.

        Raises:
            BackendUnavailableError: it cannot be reached.
            FatalProvisioningError: its certificate is not the one that is wanted.
            AuthenticationError: it refuses the user name or the password.
        """
        if self._content is None:
            self._stub = _Stub(self)
            root = vim.ServiceInstance("ServiceInstance", self._stub)
            content = root.RetrieveServiceContent()
            self._log_in(content)
            self._content = content
        return self._content

    @property
    def is_vcenter(self) -> bool:
        return bool(self.content.about.apiType == "VirtualCenter")

    @property
    def cookie(self) -> str:
        """The session's cookie, for downloads and uploads."""
        assert self.content is not None
        assert self._stub is not None
        return str(self._stub.cookie).partition(";")[0]

    @contextlib.contextmanager
    def farewell(self) -> Iterator[None]:
        """Let the block's calls be made though the work must stop, for some seconds at most.

        Work that need not stop is not changed by it.
        """
        self.cancellation.look()  # who failed may know before it is told
        if self.cancellation.reason() is None:
            yield
            return
        before = self.cancellation, self.waits.cancellation
        deadline = clock.monotonic() + FAREWELL_SECONDS
        self.cancellation = self.waits.cancellation = Cancellation(
            lambda: "its last seconds are over" if clock.monotonic() > deadline else None,
            ask_interval_seconds=0.5,
        )
        self.is_leaving = True
        try:
            with contextlib.suppress(WorkerStopped):
                yield
        finally:
            self.cancellation, self.waits.cancellation = before
            self.is_leaving = False

    def close(self) -> None:
        """Log out; hosts allow only so many sessions. Never raises."""
        if self._content is None or self._stub is None:
            return
        content, self._content = self._content, None
        self.waits.cancellation = Cancellation()
        self.waits.answer_seconds = LOGOUT_SECONDS
        self._patience_seconds = 0
        with contextlib.suppress(vmodl.MethodFault, ProvisioningError):
            content.sessionManager.Logout()
        self._stub.DropConnections()

    def invoke(self, call: Any, mo: Any, info: Any, args: Any) -> Any:
        """Make a call for the stub."""
        name = info.wsdlName
        deadline = clock.monotonic() + self._patience_seconds
        again = 1
        for pause in pauses(0.2, 5.0, 2.0):
            try:
                self.called_at = clock.monotonic()
                return call(mo, info, args)
            except vim.fault.NotAuthenticated:
                if self._content is None or not again:
                    raise
                again -= 1
                self._log.info("the session has ended, logging in again", host=self.endpoint.name)
                assert self._stub is not None
                self._stub.cookie = ""
                self._log_in(self._content)
                continue
            except CertificateError as err:
                raise FatalProvisioningError(str(err), blame=Blame.VMHOST) from err
            except LOST as err:
                if not _may_repeat(name, err) or clock.monotonic() + pause > deadline:
                    raise self._lost(name, err) from err
                self._log.warning(
                    "the API does not answer, trying again",
                    host=self.endpoint.name,
                    method=name,
                    reason=_reason(err),
                )
            self.waits.cancellation.wait(pause)
        raise AssertionError  # pauses never end

    def _log_in(self, content: Any) -> None:
        endpoint = self.endpoint
        try:
            content.sessionManager.Login(endpoint.username, endpoint.password, None)
        except vim.fault.InvalidLogin as err:
            raise AuthenticationError(
                f"{endpoint.name} refuses the user {endpoint.username} or the password of its"
                " profile",
                blame=Blame.VMHOST,
            ) from err
        except vim.fault.NoPermission as err:
            # A vCenter says so of users that it knows and that have no role anywhere.
            raise AuthenticationError(
                f"{endpoint.name} knows the user {endpoint.username} of its profile, but lets it"
                " do nothing: give it a role there",
                blame=Blame.VMHOST,
            ) from err
        except vmodl.MethodFault as err:
            raise BackendUnavailableError(
                f"{endpoint.name} lets nobody log in now: {type(err).__name__}"
            ) from err
        self.logins += 1

    def _lost(self, name: str, err: BaseException) -> BackendUnavailableError:
        endpoint = self.endpoint
        where = f"{endpoint.name} ({endpoint.address}:{endpoint.port})"
        return BackendUnavailableError(f"{where} does not answer ({name}): {_reason(err)}")


def _may_repeat(name: str, err: BaseException) -> bool:
    """True when the call changes nothing, or cannot have begun."""
    if name.startswith(READING) and name not in CHANGING:
        return True
    if isinstance(err, ConnectionRefusedError):
        return True
    return type(err) is http.client.HTTPException and str(err).startswith("503")


def _reason(err: BaseException) -> str:
    return str(err) or type(err).__name__
