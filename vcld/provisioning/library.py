"""Files of images that come from other management nodes (provisioning specification, §7)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from vcld import clock
from vcld.errors import (
    AuthenticationError,
    Blame,
    FatalProvisioningError,
    RemoteError,
)
from vcld.programs import CommandStuckError, Program
from vcld.provisioning.partner import PartnerNode
from vcld.syncing import sync
from vcld.waiting import Cancellation

ASK_SECONDS, SUM_SECONDS = 60.0, 3600.0
#: Sums of what is very large have longer.
SLOWEST_SUM_BYTES = 10 << 20
#: A part of a file that does not come within this time does not come at all.
PART_SECONDS = 60.0
#: Nor does one at a rate below this, after the first minutes.
SLOWEST_COPY_BYTES, PATIENCE_SECONDS = 100 << 10, 600.0
COPY_ATTEMPTS = 2
#: Whatever is larger is a disk, not the description of one.
LONGEST_TEXT_BYTES = 1 << 20


class SpoiledError(FatalProvisioningError):
    """A partner does not send what it has, however often it is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A folder of a partner that may hold a whole image: sizes in bytes by file name."""

    node: PartnerNode
    folder: str
    sizes: Mapping[str, int]

    @property
    def size_bytes(self) -> int:
        return sum(self.sizes.values())

    @property
    def rank(self) -> tuple[int, int]:
        """The largest is the one that is not just being received itself."""
        return self.size_bytes, len(self.sizes)

    @property
    def partner(self) -> str:
        """The name of the management node."""
        return self.node.partner.hostname

    def read_text(self, name: str) -> str:
        """The beginning of a small file.

        Raises:
            ProvisioningError: it does not come.
        """
        length = str(LONGEST_TEXT_BYTES)
        command = ["head", "-c", length, "--", f"{self.folder}/{name}"]
        return self.node.ask(command, ASK_SECONDS).out

    def sums(self) -> dict[str, str]:
        """SHA-256 sums by file name, as the partner reckons them.

        Raises:
            ProvisioningError: it does not tell all of them.
        """
        paths = {f"{self.folder}/{name}": name for name in self.sizes}
        node = self.node.telling(lambda: f"{self.partner} sums up {self.size_bytes >> 20} MB")
        limit = max(SUM_SECONDS, self.size_bytes / SLOWEST_SUM_BYTES)
        output = node.ask(["sha256sum", "--", *paths], limit)
        lines = (line.partition("  ") for line in output.out.splitlines())
        sums = {paths[path]: digest for digest, _, path in lines if path in paths}
        lacking = sorted(set(self.sizes) - set(sums))
        if lacking:
            raise RemoteError(
                f"{self.partner} gives no checksum of {lacking[0]}", blame=Blame.MANAGEMENT_NODE
            )
        return sums

    def fetch(self, name: str, digest: str, deliver: Callable[[Stream], None]) -> None:
        """Bring a file, and once more if what came is not what was sent.

        ``deliver`` takes all of the stream, and begins anew when it is called again.

        Raises:
            SpoiledError: it came wrong each time.
            WorkerStopped: the worker was told to stop.
        """
        log = self.node.tools.log
        for attempt in range(1, COPY_ATTEMPTS + 1):
            try:
                with Stream(self.node, f"{self.folder}/{name}", self.sizes[name]) as stream:
                    deliver(stream)
            except RemoteError as err:
                reason = str(err)
            else:
                if stream.sha256 == digest:
                    return
                reason = f"{stream.done_bytes} bytes came, with another checksum"
            log.warning("copy from partner failed", file=name, attempt=attempt, reason=reason)
        raise SpoiledError(
            f"{name} of {self.partner} did not arrive as it was sent, {COPY_ATTEMPTS} times:"
            f" {reason}",
            blame=Blame.MANAGEMENT_NODE,
        )


def receive(offers: Sequence[Offer], take: Callable[[Offer], None]) -> None:
    """Take the first, or, when its partner fails, the same from another partner.

    Raises:
        ProvisioningError: none of them could be had.
    """
    first, *others = offers
    same = [first, *(one for one in others if one.sizes == first.sizes)]
    for offer in same:
        try:
            take(offer)
        except (RemoteError, AuthenticationError, SpoiledError) as err:
            if offer is same[-1]:
                raise
            offer.node.tools.log.warning(
                "another partner is asked", partner=offer.partner, reason=str(err)
            )
        else:
            return


class Stream:
    """A file that comes from a partner; what has come is summed up."""

    def __init__(self, node: PartnerNode, path: str, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.done_bytes = 0
        self._waited_seconds = 0.0
        self._path = path
        self._node = node.telling(self._describe)
        self._program: Program = node.begin(["cat", "--", path])
        self._program.widen()
        self._sum = hashlib.sha256()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._program.close()

    def read(self, _size: int = -1) -> bytes:
        """The next part; empty at the end of the file.

        Raises:
            RemoteError: none comes, or the file ends before it should, or does not.
        """
        began = clock.monotonic()
        try:
            part = self._program.read(PART_SECONDS, self.cancellation)
            if not part:
                self._node.finish(self._program, ASK_SECONDS)
        except CommandStuckError as err:
            raise RemoteError(str(err), blame=Blame.MANAGEMENT_NODE) from err
        self._waited_seconds += clock.monotonic() - began
        self._sum.update(part)
        self.done_bytes += len(part)
        if self.done_bytes > self.size_bytes or not (part or self.done_bytes == self.size_bytes):
            raise RemoteError(
                f"{self.done_bytes} bytes came instead of {self.size_bytes}",
                blame=Blame.MANAGEMENT_NODE,
            )
        if self._waited_seconds > PATIENCE_SECONDS + self.done_bytes / SLOWEST_COPY_BYTES:
            raise RemoteError(
                f"only {self.done_bytes} bytes came within {self._waited_seconds:.0f} s",
                blame=Blame.MANAGEMENT_NODE,
            )
        return part

    def _describe(self) -> str:
        name, done = self._path.rpartition("/")[2], self.done_bytes >> 20
        partner = self._node.partner.hostname
        return f"copying {name} from {partner}: {done} of {self.size_bytes >> 20} MB"

    @property
    def cancellation(self) -> Cancellation:
        """What waits beside the stream waits by."""
        return self._node.tools.cancellation

    @property
    def sha256(self) -> str:
        return self._sum.hexdigest()


def write(target: Path, stream: Stream) -> None:
    """Write all of a stream to a file, in place of what it held; safe on the disk.

    Raises:
        OSError: it cannot be written.
        RemoteError: as ``Stream.read``.
    """
    with target.open("wb") as writer:
        while part := stream.read():
            writer.write(part)
        writer.flush()
        sync(writer.fileno(), stream.cancellation)
    target.chmod(0o644)
