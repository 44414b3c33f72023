"""Fetching an image from a partner management node (provisioning specification, §7).

By the OpenSSH programs, with the library's own key: they copy twice as fast as SFTP in Python
(docs/xcat.md). Every file is copied under another name, compared by its SHA-256 sum, and
renamed; until all are there the image counts as partial. What a partner's row in the database
says reaches the programs as data: never as an option, never unquoted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vcld.errors import (
    AuthenticationError,
    Blame,
    FatalProvisioningError,
    ImageNotFoundError,
    ProvisioningError,
    RemoteError,
)
from vcld.provisioning.leasing import Turn
from vcld.provisioning.xcat.repository import check_name, partial_name
from vcld.provisioning.xcat.runner import LocalRunner, Output
from vcld.provisioning.xcat.site import XcatSite
from vcld.store.partners import Partner, find_partners

DEFAULT_KEY = "/etc/vcl/imagelib.key"
ASK_SECONDS, SUM_SECONDS, COPY_SECONDS = 60.0, 3600.0, 7200.0
WAIT_SECONDS = 7200.0
CONNECT_SECONDS = 15
COPY_ATTEMPTS = 2
#: OpenSSH's exit code for its own failures.
SSH_FAILED = 255
CHUNK_BYTES = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An image as a partner has it: sizes by path, all in one folder."""

    partner: Partner
    sizes: dict[str, int]

    @property
    def rank(self) -> tuple[int, int]:
        """The largest is the one that is not just being received itself."""
        return sum(self.sizes.values()), len(self.sizes)


class Retrieval:
    """Fetches one image."""

    def __init__(self, site: XcatSite, image: str) -> None:
        check_name(image)
        self._site = site
        self._image = image
        self._runner = LocalRunner("/usr")
        self._node = site.reservation.managementnode

    def run(self) -> None:
        """Fetch it from the partner that has most of it.

        Raises:
            ImageNotFoundError: no partner has it; what each said is in the message.
            FatalProvisioningError: it does not fit, or what came is not what was sent.
        """
        site, tools = self._site, self._site.tools
        turn = Turn(wait_seconds=WAIT_SECONDS)
        what = f"a turn at fetching {self._image}"
        with site.leases.take(f"retrieve:{self._image}:{self._node.id}", what, turn):
            if site.repository.files(self._image):
                return  # somebody has fetched it meanwhile
            partners = tools.run(find_partners, self._node.id)
            if not partners:
                raise ImageNotFoundError(f"no management node shares {self._image} with this one")
            offer = self._best(partners)
            self._receive(offer)

    def _best(self, partners: list[Partner]) -> Offer:
        offers, problems = [], []
        for partner in partners:
            try:
                sizes = self._list(partner)
            except ProvisioningError as err:
                problems.append(f"{partner.hostname}: {err}")
                continue
            if sizes:
                offers.append(Offer(partner=partner, sizes=sizes))
            else:
                problems.append(f"{partner.hostname} does not have it")
        if not offers:
            raise ImageNotFoundError(f"image {self._image}: {'; '.join(problems)}")
        return max(offers, key=lambda offer: offer.rank)

    def _list(self, partner: Partner) -> dict[str, int]:
        """Files of the image in the folder of the partner that holds most of it."""
        roots = dict.fromkeys((partner.installpath, "/install"))
        folders = [
            f"{root}/{name}/{arch}"
            for root in roots
            if root.startswith("/")
            for name in ("image", "images")
            for arch in self._site.repository.architectures
        ]
        mark = partial_name(self._image)
        patterns = (f"{self._image}.*", f"{self._image}-*", mark)
        names = [word for each in patterns for word in ("-o", "-name", each)][1:]
        command = ["find", *folders, "-maxdepth", "1", "-type", "f"]
        # A folder that is not there is no error: the exit code says only that.
        output = self._ssh(
            partner, [*command, "(", *names, ")", "-printf", r"%s %p\n"], ASK_SECONDS, {0, 1}
        )
        by_folder: dict[str, dict[str, int]] = {}
        incomplete = set()
        for line in output.out.splitlines():
            size, _, path = line.partition(" ")
            folder, _, name = path.rpartition("/")
            if name == mark:
                incomplete.add(folder)
            elif size.isdecimal() and path.startswith("/"):
                by_folder.setdefault(folder, {})[path] = int(size)
        whole = [sizes for folder, sizes in by_folder.items() if folder not in incomplete]
        return max(whole, key=lambda s: (sum(s.values()), len(s)), default={})

    def _receive(self, offer: Offer) -> None:
        folder = self._site.repository.folder
        total = sum(offer.sizes.values())
        mark = self._site.repository.partial_mark(self._image, folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            facts = os.statvfs(folder)
            if facts.f_bavail * facts.f_frsize < total:
                raise FatalProvisioningError(
                    f"{self._image} needs {total >> 20} MB in {folder}, where"
                    f" {facts.f_bavail * facts.f_frsize >> 20} MB are free",
                    blame=Blame.MANAGEMENT_NODE,
                )
            # What an attempt that died has left.
            for old in self._site.repository.all_files(self._image, folder):
                old.unlink()
            mark.touch()
            with self._temporary(folder) as prefix:
                sums = self._sums(offer)
                for path in offer.sizes:
                    name = PurePosixPath(path).name
                    self._copy(offer.partner, path, Path(f"{prefix}{name}"), sums[path])
                self._site.leases.confirm()  # nobody else has begun it anew
                for path in offer.sizes:
                    name = PurePosixPath(path).name
                    Path(f"{prefix}{name}").replace(folder / name)
            mark.unlink()
        except OSError as err:
            raise FatalProvisioningError(
                f"{self._image} cannot be written to {folder}: {err.strerror}",
                blame=Blame.MANAGEMENT_NODE,
            ) from err

    @contextlib.contextmanager
    def _temporary(self, folder: Path) -> Iterator[str]:
        """A prefix for paths of files that vanish with the block."""
        prefix = folder / f".{self._image}.{secrets.token_hex(4)}."
        try:
            yield str(prefix)
        finally:
            for path in folder.glob(f"{prefix.name}*"):
                path.unlink(missing_ok=True)

    def _sums(self, offer: Offer) -> dict[str, str]:
        output = self._ssh(offer.partner, ["sha256sum", "--", *offer.sizes], SUM_SECONDS, {0})
        sums = {}
        for line in output.out.splitlines():
            digest, _, path = line.partition("  ")
            sums[path] = digest
        missing = offer.sizes.keys() - sums.keys()
        if missing:
            raise RemoteError(
                f"{offer.partner.hostname} gives no checksum of {min(missing)}",
                blame=Blame.MANAGEMENT_NODE,
            )
        return sums

    def _copy(self, partner: Partner, path: str, target: Path, digest: str) -> None:
        for attempt in range(1, COPY_ATTEMPTS + 1):
            self._site.tools.progress(
                "copyfrompartnerMN", f"copying {target.name.rpartition('.')[2]} of {self._image}"
                f" from {partner.hostname}",
            )  # fmt: skip
            source = f"{partner.address}:{path}"
            options = self._options(partner, "-P")
            command = ["/usr/bin/scp", "-q", *options, "--", source, str(target)]
            output = self._runner.run(
                command,
                limit_seconds=COPY_SECONDS,
                cancellation=self._site.tools.cancellation,
            )
            if output.code == 0 and self._sum(target) == digest:
                target.chmod(0o644)
                _force_to_disk(target)
                return
            self._site.tools.log.warning(
                "copy from partner failed", path=path, attempt=attempt, reason=output.err.strip()
            )
        raise FatalProvisioningError(
            f"{path} of {partner.hostname} did not arrive as it was sent, {COPY_ATTEMPTS} times",
            blame=Blame.MANAGEMENT_NODE,
        )

    def _sum(self, path: Path) -> str:
        """SHA-256 of a file; empty when there is none. Renews the lease meanwhile."""
        digest = hashlib.sha256()
        try:
            with path.open("rb") as data:
                while chunk := data.read(CHUNK_BYTES):
                    digest.update(chunk)
                    self._site.tools.cancellation.wait(0.0)
        except OSError:
            return ""
        return digest.hexdigest()

    def _ssh(
        self, partner: Partner, command: list[str], limit_seconds: float, good: set[int]
    ) -> Output:
        target = f"{partner.user}@{partner.address}"
        # The other side's shell reads the command as text.
        options = self._options(partner, "-p")
        full = ["/usr/bin/ssh", *options, "--", partner.address, shlex.join(command)]
        output = self._runner.run(
            full, limit_seconds=limit_seconds, cancellation=self._site.tools.cancellation
        )
        if output.code in good:
            return output
        reason = (output.err.strip().splitlines() or ["no reason given"])[-1]
        if output.code == SSH_FAILED and "Permission denied" in output.err:
            raise AuthenticationError(
                f"{target} refuses the key {self._key}", blame=Blame.MANAGEMENT_NODE
            )
        raise RemoteError(f"{target}: {reason}", blame=Blame.MANAGEMENT_NODE)

    @property
    def _key(self) -> str:
        return self._node.imagelibkey or DEFAULT_KEY

    def _options(self, partner: Partner, port_option: str) -> list[str]:
        settings = {
            # As an option of its own: before an @ it could be read as part of a path.
            "User": partner.user,
            "BatchMode": "yes",
            "ConnectTimeout": str(CONNECT_SECONDS),
            "ServerAliveInterval": "15",
            "IdentitiesOnly": "yes",
            # Known on first sight, and refused when it changes.
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": f"{self._key}.known_hosts",
        }
        options = [word for item in settings.items() for word in ("-o", "=".join(item))]
        return [*options, "-i", self._key, port_option, str(partner.port)]


def _force_to_disk(path: Path) -> None:
    with path.open("rb") as data:
        os.fsync(data.fileno())
