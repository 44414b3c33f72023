"""The image libraries of other management nodes (provisioning specification, §7)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Self

from vcld import clock
from vcld.errors import (
    BackendUnavailableError,
    Blame,
    FatalProvisioningError,
    ImageNotFoundError,
    ProvisioningError,
    RemoteError,
)
from vcld.guest.interface import Tools
from vcld.programs import CommandStuckError, Output, Program
from vcld.provisioning.partner import PartnerNode
from vcld.snapshot import ManagementNode
from vcld.store.partners import Partner, find_partners
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
#: For what has come already, when others have used up the time.
LEAST_SECONDS = 1.0
#: Whatever is larger is a disk, not the description of one.
LONGEST_TEXT_BYTES = 1 << 20
_ENTRY = re.compile(r"(?P<size>\d+) (?P<folder>/.*)/(?P<name>[^/]+)", re.ASCII | re.DOTALL)
#: What find(1) complains of, apart from folders that a partner need not have.
_TROUBLE = re.compile(
    r"find: [`'\"]?(?P<path>/.*?)[`'\"]?: (?!No such file or directory$)[^:]*$"
    r"|find: (?!.*: No such).*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What to look for: files whose names match one of the patterns, directly in the folders."""

    folders: Sequence[str]
    patterns: Sequence[str]


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
            FatalProvisioningError: it came wrong each time.
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
        raise FatalProvisioningError(
            f"{name} of {self.partner} did not arrive as it was sent, {COPY_ATTEMPTS} times:"
            f" {reason}",
            blame=Blame.MANAGEMENT_NODE,
        )


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


def find_offers(
    tools: Tools,
    node: ManagementNode,
    image: str,
    search: Callable[[Partner], Search],
    accept: Callable[[Offer], bool],
) -> list[Offer]:
    """Ask every partner at once what it has of an image; the best first.

    ``search`` says where a partner may have it, and what it consists of; ``accept``, whether
    the files of a folder may be all of it.

    Raises:
        ImageNotFoundError: no partner has it; what each said is in the message.
        BackendUnavailableError: a lease was lost meanwhile.
    """
    partners: list[Partner] = tools.run(find_partners, node.id)
    if not partners:
        raise ImageNotFoundError(f"no management node shares {image} with this one")
    offers, problems = [], []
    with ExitStack() as stack:
        asked = []
        for partner in partners:
            asked_node = PartnerNode(tools, node, partner)
            program = stack.enter_context(asked_node.begin(_listing(search(partner))))
            asked.append((asked_node, program))
        deadline = clock.monotonic() + ASK_SECONDS
        for asked_node, program in asked:
            # They have been at it all together, and so they are waited for.
            left = max(LEAST_SECONDS, deadline - clock.monotonic())
            try:
                # A folder that is not there is no error: the exit code says only that.
                output = asked_node.finish(program, left, good=(0, 1))
                found, problem = _sort(asked_node, search(asked_node.partner), output)
            except BackendUnavailableError:
                raise  # not the partner's: a lease was lost
            except ProvisioningError as err:
                found, problem = [], str(err)
            whole = [one for one in found if accept(one)]
            offers += whole
            if not whole:
                name = asked_node.partner.hostname
                problems.append(f"{name}: {problem}" if problem else f"{name} does not have it")
    if not offers:
        raise ImageNotFoundError(f"image {image}: {'; '.join(problems)}")
    return sorted(offers, key=lambda one: one.rank, reverse=True)


def _listing(search: Search) -> list[str]:
    """A command that prints sizes and paths; links count as what they lead to."""
    folders = [folder for folder in dict.fromkeys(search.folders) if folder.startswith("/")]
    names = [word for each in search.patterns for word in ("-o", "-name", each)][1:]
    tests = ["-maxdepth", "1", "(", *names, ")", "-type", "f", "-printf", r"%s %p\0"]
    return ["find", "-L", *(folders or ["/nonexistent"]), *tests]


def _sort(node: PartnerNode, search: Search, output: Output) -> tuple[list[Offer], str | None]:
    """What a listing holds by folders, and what the partner could not look into.

    Raises:
        RemoteError: it is none, or not all of one: then nobody can say what it lacks.
    """
    by_folder: dict[str, dict[str, int]] = {}
    *entries, rest = output.out.split("\0")
    for entry in entries:
        found = _ENTRY.fullmatch(entry)
        name = found["name"] if found else ""
        if found is None or not any(fnmatchcase(name, one) for one in search.patterns):
            rest = entry
            break
        by_folder.setdefault(found["folder"], {})[name] = int(found["size"])
    if rest:
        raise RemoteError(
            f"{node.where} prints {rest[:60]!r} where names of files should be: what its shell runs"
            " at the start must print nothing",
            blame=Blame.MANAGEMENT_NODE,
        )
    troubles = [found for line in output.err.splitlines() if (found := _TROUBLE.match(line))]
    doubtful = set()
    for path in (found["path"] for found in troubles if found["path"]):
        folder, _, name = path.rpartition("/")
        is_a_part = any(fnmatchcase(name, one) for one in search.patterns)
        doubtful.add(folder if is_a_part else path)
    offers = [
        Offer(node=node, folder=folder, sizes=sizes)
        for folder, sizes in by_folder.items()
        if folder not in doubtful
    ]
    return offers, troubles[0][0] if troubles else None


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
