"""Files on datastores: listed, copied, moved and removed by the host, small texts over HTTPS."""

from __future__ import annotations

import contextlib
import http.client
import io
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from pyVmomi import vim

from vcld import clock
from vcld.errors import BackendUnavailableError, Blame, ProvisioningError
from vcld.provisioning.esxi import faults
from vcld.provisioning.esxi.client import Client
from vcld.provisioning.esxi.inventory import Inventory
from vcld.provisioning.esxi.paths import DatastorePath
from vcld.provisioning.esxi.transport import CertificateError, Connection
from vcld.syncing import sync

browser: Any = vim.host.DatastoreBrowser
#: Texts are markers and configurations; whatever is larger is none of ours.
LONGEST_TEXT_BYTES = 1 << 20
CHUNK_BYTES = 1 << 20
OK, CREATED, UNAUTHORIZED, NOT_FOUND = 200, 201, 401, 404
#: Sessions that are idle for long end; a call renews them.
IDLE_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    size_bytes: int
    is_folder: bool = False


class Readable(Protocol):
    """What can be read in parts, to an empty one at its end."""

    def read(self, size: int = -1, /) -> bytes: ...


class Reader(Readable, Protocol):
    """The same, with a size that is known before."""

    size_bytes: int


class _Watched:
    """A file that is read for an upload; between two parts the work may be told to stop."""

    def __init__(self, reader: Readable, client: Client) -> None:
        self._reader = reader
        self._client = client

    def read(self, _size: int = -1) -> bytes:
        self._client.session.waits.cancellation.wait(0.0)
        return self._reader.read(CHUNK_BYTES)

    def rewind(self) -> bool:
        """Begin again; False for what comes from elsewhere, and cannot."""
        if isinstance(self._reader, io.IOBase) and self._reader.seekable():
            self._reader.seek(0)
            return True
        return False


class Files:
    """The files of one inventory's datastores. A path that is not there raises nothing."""

    def __init__(self, client: Client, inventory: Inventory, *, copy_seconds: float) -> None:
        self._client = client
        self._inventory = inventory
        self._copy_seconds = copy_seconds

    def list(self, folder: DatastorePath) -> dict[str, FileFacts] | None:
        """The entries of a folder by name; None when it is not there."""
        details = browser.FileInfo.Details(
            fileSize=True, fileType=True, modification=False, fileOwner=False
        )
        found = self._search(folder, browser.SearchSpec(details=details, matchPattern=["*"]))
        return None if found is None else {item.path: _facts(item) for item in found}

    def capacity_kib(self, disk: DatastorePath) -> int | None:
        """Size that a disk shows to its VM, KiB; None where nobody tells."""
        query = browser.VmDiskQuery(details=browser.VmDiskQuery.Details(capacityKb=True))
        spec = browser.SearchSpec(query=[query], matchPattern=[disk.name])
        found = self._search(disk.parent, spec) or []
        return next((item.capacityKb for item in found if getattr(item, "capacityKb", None)), None)

    def _search(self, folder: DatastorePath, spec: Any) -> Sequence[Any] | None:
        search = self._inventory.datastore(folder.datastore).browser
        try:
            found = self._client.run_task(
                lambda: search.SearchDatastore_Task(datastorePath=str(folder), searchSpec=spec),
                f"{folder} cannot be read",
            )
        except faults.GONE:
            return None
        return list(found.file)

    def make_folder(self, folder: DatastorePath) -> None:
        """Make a folder and those above it; one that is there stays as it is."""
        try:
            self._client.content.fileManager.MakeDirectory(
                str(folder), self._inventory.datacenter, createParentDirectories=True
            )
        except vim.fault.FileAlreadyExists:
            return
        except vim.fault.FileFault as fault:
            raise faults.translate(fault, f"{folder} cannot be made") from fault

    def discard(self, path: DatastorePath) -> None:
        """Delete what is of no use, if possible; also when the work must stop."""
        with self._client.session.farewell(), contextlib.suppress(ProvisioningError):
            self.delete(path)

    def delete(self, path: DatastorePath) -> None:
        """Delete a file, or a folder with all that is in it."""
        if not path.path:
            raise ValueError(path)  # never a whole datastore
        manager = self._client.content.fileManager
        try:
            self._client.run_task(
                lambda: manager.DeleteDatastoreFile_Task(str(path), self._inventory.datacenter),
                f"{path} cannot be deleted",
            )
        except faults.GONE:
            return

    def move(self, source: DatastorePath, target: DatastorePath) -> bool:
        """Rename a file or folder; False when the target is there already."""
        manager, center = self._client.content.fileManager, self._inventory.datacenter
        what = f"{source} cannot be renamed to {target}"
        try:
            self._client.run_task(
                lambda: manager.MoveDatastoreFile_Task(
                    str(source), center, str(target), center, force=False
                ),
                what,
            )
        except vim.fault.FileAlreadyExists:
            return False
        except faults.GONE as fault:
            raise faults.translate(fault, what) from fault
        return True

    def copy_disk(
        self,
        source: DatastorePath,
        target: DatastorePath,
        on_progress: Callable[[int], None] = lambda percent: None,
        *,
        adapter: str = "lsiLogic",
    ) -> None:
        """Copy a disk, with all that its parents hold, to one that stands alone.

        A host makes a thin one for the ``adapter``, by which a BIOS reckons the disk's geometry;
        vCenter refuses a format and keeps that of the source.
        """
        manager, center = self._client.content.virtualDiskManager, self._inventory.datacenter
        spec = None
        if not self._client.session.is_vcenter:
            spec = vim.VirtualDiskManager.VirtualDiskSpec(diskType="thin", adapterType=adapter)
        what = f"{source} cannot be copied to {target}"
        try:
            self._client.run_task(
                lambda: manager.CopyVirtualDisk_Task(
                    str(source), center, str(target), center, spec, force=False
                ),
                what,
                limit_seconds=self._copy_seconds,
                on_progress=on_progress,
            )
        except (*faults.GONE, vim.fault.FileAlreadyExists) as fault:
            raise faults.translate(fault, what, Blame.IMAGE) from fault

    def read_text(self, path: DatastorePath) -> str | None:
        """Read a small text file; None when it is not there."""
        status, body = self._request("GET", path, b"")
        if status == NOT_FOUND:
            return None
        if status != OK:
            raise ProvisioningError(f"{path} cannot be read: HTTP {status}", blame=Blame.VMHOST)
        return body.decode("utf-8", "replace")

    def write_text(self, path: DatastorePath, text: str) -> None:
        """Write a small text file."""
        status, _ = self._request("PUT", path, text.encode())
        if status not in {OK, CREATED}:
            raise ProvisioningError(f"{path} cannot be written: HTTP {status}", blame=Blame.VMHOST)

    def upload(self, source: Path, target: DatastorePath) -> None:
        """Send a file of this machine to a datastore."""
        with source.open("rb") as reader:
            body = _Watched(reader, self._client)
            status, _ = self._request("PUT", target, body, source.stat().st_size)
        if status not in {OK, CREATED}:
            raise ProvisioningError(
                f"{target} cannot be written: HTTP {status}", blame=Blame.VMHOST
            )

    def receive(self, stream: Reader, target: DatastorePath) -> None:
        """Send what is read from elsewhere to a datastore."""
        body = _Watched(stream, self._client)
        status, _ = self._request("PUT", target, body, stream.size_bytes)
        if status not in {OK, CREATED}:
            raise ProvisioningError(
                f"{target} cannot be written: HTTP {status}", blame=Blame.VMHOST
            )

    def download(self, source: DatastorePath, target: Path) -> None:
        """Fetch a file of a datastore to this machine, safe on its disk."""
        with target.open("wb") as writer:
            status, _ = self._request("GET", source, b"", into=writer)
            writer.flush()
            sync(writer.fileno(), self._client.session.waits.cancellation)
        if status != OK:
            raise ProvisioningError(f"{source} cannot be read: HTTP {status}", blame=Blame.VMHOST)

    def _request(
        self,
        method: str,
        path: DatastorePath,
        body: bytes | _Watched,
        size_bytes: int | None = None,
        into: BinaryIO | None = None,
    ) -> tuple[int, bytes]:
        session = self._client.session
        is_idle = clock.monotonic() - session.called_at > IDLE_SECONDS
        if is_idle or isinstance(body, _Watched):
            # A large file is cut off in the middle, rather than refused, when it has ended.
            self._renew_session()
        done = self._send(method, path, body, size_bytes, into)
        if done[0] == UNAUTHORIZED and (not isinstance(body, _Watched) or body.rewind()):
            self._renew_session()
            done = self._send(method, path, body, size_bytes, into)
        if done[0] == UNAUTHORIZED:
            raise BackendUnavailableError(
                f"{session.endpoint.name} does not answer ({method} {path}): the session has ended"
            )
        return done

    def _renew_session(self) -> None:
        """Log in again if the session has ended; files are not asked for by calls that do."""
        manager = self._client.session.content.sessionManager
        self._client.read_one(manager, "currentSession")

    def _send(
        self,
        method: str,
        path: DatastorePath,
        body: bytes | _Watched,
        size_bytes: int | None,
        into: BinaryIO | None,
    ) -> tuple[int, bytes]:
        session = self._client.session
        endpoint = session.endpoint
        query = urllib.parse.urlencode(
            {"dcPath": self._inventory.datacenter_path, "dsName": path.datastore}
        )
        target = f"/folder/{urllib.parse.quote(path.path)}?{query}"
        headers = {"Cookie": session.cookie, "Content-Type": "application/octet-stream"}
        connection = Connection(
            endpoint.address, endpoint.port, endpoint=endpoint, waits=session.waits
        )
        try:
            if size_bytes is not None:
                headers["Content-Length"] = str(size_bytes)
            connection.request(method, target, body or None, headers)
            answer = connection.getresponse()
            if into is not None and answer.status == OK:
                done = 0
                while part := answer.read(CHUNK_BYTES):
                    into.write(part)
                    done += len(part)
                    session.waits.cancellation.wait(0.0)
                if str(done) != answer.headers.get("Content-Length", str(done)):
                    raise http.client.IncompleteRead(b"")
                return answer.status, b""
            return answer.status, answer.read(LONGEST_TEXT_BYTES)
        except (OSError, http.client.HTTPException, CertificateError) as err:
            raise BackendUnavailableError(
                f"{endpoint.name} does not answer ({method} {path}): {err}"
            ) from err
        finally:
            connection.close()


def _facts(item: Any) -> FileFacts:
    return FileFacts(size_bytes=item.fileSize or 0, is_folder=isinstance(item, browser.FolderInfo))
