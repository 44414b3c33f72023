"""The image libraries of other management nodes, read over SSH.

Files are listed and read by SFTP: what rows say of a partner (its address, account and folders)
is data there, and can become neither an option of a program nor a word of a shell. The one
command that is run on a partner, ``sha256sum``, gets its files behind ``--``, quoted.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import paramiko

from vcld.errors import Blame, HostKeyChangedError, RemoteError
from vcld.guest.interface import Tools
from vcld.remote import blocking
from vcld.remote.endpoint import Endpoint, key_text
from vcld.remote.remote import Remote
from vcld.snapshot import ManagementNode
from vcld.store.partners import Partner
from vcld.waiting import Cancellation

DEFAULT_KEY = "/etc/vcl/imagelib.key"
CONNECT_SECONDS, SUM_SECONDS = 15.0, 3600.0
#: A part of a file that does not come within this time does not come at all.
PART_SECONDS = 60.0
#: It is asked for in pieces of 32 KiB, all at once.
PART_BYTES = 4 << 20
#: Whatever is larger is a disk, not the description of one.
LONGEST_TEXT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A folder of a partner that may hold a whole image: sizes in bytes by file name."""

    partner: Partner
    folder: str
    sizes: Mapping[str, int]

    @property
    def size_bytes(self) -> int:
        return sum(self.sizes.values())


class KnownHosts:
    """The host key of one partner, in a file that OpenSSH reads too: learnt once, then kept."""

    def __init__(self, path: Path, partner: Partner) -> None:
        self._path = path
        plain = partner.port == paramiko.config.SSH_PORT
        self._name = partner.address if plain else f"[{partner.address}]:{partner.port}"

    def find(self) -> str | None:
        if not self._path.exists():
            return None
        found = paramiko.HostKeys(str(self._path)).lookup(self._name)
        return next((key_text(key) for key in found.values()), None) if found else None

    def learn(self, key: str) -> None:
        if any(char.isspace() or char in ",*?!|" for char in self._name):
            return  # it would mean more than one host
        with self._path.open("a", encoding="ascii") as writer:
            writer.write(f"{self._name} {key}\n")

    def forget(self) -> None:
        """Nobody installs a partner anew."""


class Library:
    """One partner's library, connected when it is first asked."""

    def __init__(self, tools: Tools, node: ManagementNode, partner: Partner) -> None:
        self.partner = partner
        self._cancellation: Cancellation = tools.cancellation
        self._key = node.imagelibkey or DEFAULT_KEY
        self._known = Path(f"{self._key}.known_hosts")
        endpoint = Endpoint(
            name=partner.hostname,
            address=partner.address,
            port=partner.port,
            user=partner.user,
            keys=(self._key,),
        )
        self._remote = Remote(
            endpoint,
            KnownHosts(self._known, partner),
            tools.cancellation,
            connect_seconds=CONNECT_SECONDS,
            log=tools.log,
        )
        self._sftp: paramiko.SFTPClient | None = None

    def close(self) -> None:
        self._remote.close()

    def find(self, image: str, roots: Sequence[str]) -> Offer | None:
        """The folder of the image that holds most; None where no folder has its disk.

        Raises:
            ProvisioningError: the partner cannot be asked.
        """
        offers = []
        for root in dict.fromkeys(roots):
            folder = f"{root.rstrip('/')}/{image}"
            entries = self._ask(partial(_list, folder=folder), missing=[])
            sizes = {
                entry.filename: entry.st_size
                for entry in entries
                if stat.S_ISREG(entry.st_mode or 0) and entry.filename.startswith((image, "vcld-"))
            }
            if f"{image}.vmdk" in sizes:
                offers.append(Offer(partner=self.partner, folder=folder, sizes=sizes))
        return max(offers, key=lambda one: (one.size_bytes, len(one.sizes)), default=None)

    def read_text(self, path: str) -> str:
        """The beginning of a small file."""

        def read(sftp: paramiko.SFTPClient) -> bytes:
            with sftp.open(path) as reader:
                return reader.read(LONGEST_TEXT_BYTES)

        data: bytes = self._ask(read)
        return data.decode("utf-8", "replace")

    def sums(self, offer: Offer) -> dict[str, str]:
        """SHA-256 sums by file name, as the partner reckons them.

        Raises:
            RemoteError: it does not tell all of them.
        """
        paths = {f"{offer.folder}/{name}": name for name in offer.sizes}
        try:
            result = self._remote.run(["sha256sum", "--", *paths], limit_seconds=SUM_SECONDS)
        except RemoteError as err:
            raise _failure(str(err)) from err
        lines = (line.partition("  ") for line in result.lines)
        sums = {paths[path]: digest for digest, _, path in lines if path in paths}
        lacking = sorted(set(offer.sizes) - set(sums))
        if lacking:
            raise _failure(f"{self.partner.hostname} gives no checksum of {lacking[0]}")
        return sums

    def open(self, path: str) -> Stream:
        """A file, to be read to its end. No more of it is asked for than is about to be used."""
        reader: Any = self._ask(lambda sftp: sftp.open(path))
        size = int(self._ask(lambda _sftp: reader.stat().st_size))

        def read(offset: int) -> bytes:
            length = min(PART_BYTES, size - offset)
            if length <= 0:
                return b""
            part: bytes = self._ask(lambda _sftp: next(iter(reader.readv([(offset, length)]))))
            return part

        return Stream(read, size)

    def _ask(self, work: Callable[[paramiko.SFTPClient], Any], missing: Any = None) -> Any:
        """Do something by SFTP; ``missing`` is the answer when there is no such file."""
        name = self.partner.hostname
        try:
            connection = self._remote.connect()
            return blocking.call(
                lambda: work(self._session(connection)),
                cancellation=self._cancellation,
                limit_seconds=PART_SECONDS,
                abandon=connection.close,
            )
        except HostKeyChangedError as err:
            text = f"{name} shows another host key than before: if that is right, remove its line"
            raise _failure(f"{text} from {self._known}") from err
        except RemoteError as err:
            raise _failure(str(err)) from err
        except TimeoutError as err:
            raise _failure(f"{name} does not answer any more") from err
        except (paramiko.SSHException, OSError, EOFError) as err:
            if isinstance(err, OSError) and err.errno == errno.ENOENT and missing is not None:
                return missing
            raise _failure(f"{name}: {err or type(err).__name__}") from err

    def _session(self, connection: Any) -> paramiko.SFTPClient:
        if self._sftp is None:
            self._sftp = connection.open_sftp()
        return self._sftp


class Stream:
    """A file that comes from a partner; what has come is summed up."""

    def __init__(self, read: Callable[[int], bytes], size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.done_bytes = 0
        self._read = read
        self._sum = hashlib.sha256()

    def read(self, _size: int = -1) -> bytes:
        """The next part; empty at the end."""
        part = self._read(self.done_bytes)
        self._sum.update(part)
        self.done_bytes += len(part)
        return part

    @property
    def sha256(self) -> str:
        return self._sum.hexdigest()


def write(stream: Stream, target: Path, on_part: Callable[[], None]) -> None:
    """Write all of a stream to a file, safe on the disk."""
    with target.open("xb") as writer:
        while part := stream.read():
            writer.write(part)
            on_part()
        writer.flush()
        os.fsync(writer.fileno())
    target.chmod(0o644)


def _list(sftp: paramiko.SFTPClient, folder: str) -> list[paramiko.SFTPAttributes]:
    return sftp.listdir_attr(folder)


def _failure(text: str) -> RemoteError:
    """Whatever a partner's failure is: no computer is to blame for it."""
    made = RemoteError(text)
    made.blame = Blame.MANAGEMENT_NODE
    return made
