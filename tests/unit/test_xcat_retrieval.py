"""Images from partners: complete, as sent, or not at all (fault 54)."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fake_xcat import FakeXcat
from tests.xcat_alone import IMAGE, Bench
from vcld.errors import FatalProvisioningError, ImageNotFoundError, WorkerStopped
from vcld.provisioning.xcat.retrieval import Retrieval
from vcld.provisioning.xcat.runner import Output
from vcld.store.partners import Partner
from vcld.waiting import Cancellation

CONTENT = {f"{IMAGE}-sda1.gz": b"disk" * 1000, f"{IMAGE}.sfdisk": b"table"}


def partner(number: int) -> Partner:
    return Partner(
        hostname=f"mn{number}", address=f"192.0.2.{number}", user="vclstaff", port=22,
        installpath="/install",
    )  # fmt: skip


class FakePartners:
    """Stands for ssh and scp: files by address, copies that may be spoiled."""

    def __init__(self, files: dict[str, dict[str, bytes]]) -> None:
        self.files = files
        self.spoil = 0
        self.copied: list[str] = []
        self.commands: list[list[str]] = []
        self.stop_at_copy = False

    def run(
        self, command: Sequence[str], *, limit_seconds: float, cancellation: Cancellation
    ) -> Output:
        self.commands.append(list(command))
        if command[0].endswith("scp"):
            return self._copy(*command[-2:])
        address = command[-2]
        have = self.files.get(address)
        if have is None:
            return self._output("", "ssh: connect to host: Connection refused", 255)
        folder = "/install/image/x86_64"
        if command[-1].startswith("find"):
            return self._output("".join(f"{len(b)} {folder}/{n}\n" for n, b in have.items()))
        return self._output(
            "".join(f"{hashlib.sha256(b).hexdigest()}  {folder}/{n}\n" for n, b in have.items())
        )

    def _copy(self, source: str, target: str) -> Output:
        if self.stop_at_copy:
            Path(target).write_bytes(b"half")
            raise WorkerStopped("the request was deleted")
        address = source.partition(":")[0]
        self.copied.append(address)
        content = self.files[address][Path(source).name]
        if self.spoil:
            self.spoil -= 1
            content = content[:-1]
        Path(target).write_bytes(content)
        return self._output()

    @staticmethod
    def _output(out: str = "", err: str = "", code: int = 0) -> Output:
        return Output(command="ssh", code=code, out=out, err=err)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with FakeXcat(tmp_path / "xcat") as xcat:
        xcat.add_node("blade1")
        yield Bench(xcat, tmp_path, partners=[partner(1), partner(2), partner(3)])


def retrieve(bench: Bench, partners: FakePartners) -> None:
    retrieval = Retrieval(bench.provisioner().site, IMAGE)
    retrieval._runner = partners  # type: ignore[assignment]
    retrieval.run()


def left(bench: Bench) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bench.xcat.images.iterdir()}


def test_the_partner_with_the_complete_image_is_chosen(bench: Bench) -> None:
    half = {name: data[: len(data) // 2] for name, data in CONTENT.items()}
    partners = FakePartners({"192.0.2.1": half, "192.0.2.3": CONTENT})
    retrieve(bench, partners)
    assert left(bench) == CONTENT
    assert set(partners.copied) == {"192.0.2.3"}
    assert bench.provisioner().image_exists()


def test_what_a_partner_is_still_writing_is_not_taken_for_the_image(bench: Bench) -> None:
    """Fault 54: it may be capturing the image, or fetching it itself."""
    growing = {f"{IMAGE}.img": b"disk" * 100000, f".{IMAGE}.vcld-partial": b""}
    partners = FakePartners({"192.0.2.1": growing, "192.0.2.3": CONTENT})
    retrieve(bench, partners)
    assert left(bench) == CONTENT
    for path in bench.xcat.images.iterdir():
        path.unlink()
    with pytest.raises(ImageNotFoundError, match="mn1 does not have it"):
        retrieve(bench, FakePartners({"192.0.2.1": growing}))


def test_a_spoiled_copy_is_made_anew(bench: Bench) -> None:
    partners = FakePartners({"192.0.2.1": CONTENT})
    partners.spoil = 1
    retrieve(bench, partners)
    assert left(bench) == CONTENT


def test_a_copy_that_is_spoiled_again_leaves_nothing_that_counts(bench: Bench) -> None:
    partners = FakePartners({"192.0.2.1": CONTENT})
    partners.spoil = 2
    with pytest.raises(FatalProvisioningError, match="did not arrive as it was sent"):
        retrieve(bench, partners)
    assert not bench.provisioner().image_exists()
    assert not [name for name in left(bench) if not name.endswith("vcld-partial")]


def test_a_copy_that_is_stopped_leaves_nothing_that_counts_and_is_made_later(
    bench: Bench,
) -> None:
    partners = FakePartners({"192.0.2.1": CONTENT})
    partners.stop_at_copy = True
    with pytest.raises(WorkerStopped):
        retrieve(bench, partners)
    assert not bench.provisioner().image_exists()
    partners.stop_at_copy = False
    retrieve(bench, partners)
    assert left(bench) == CONTENT


def test_an_image_that_is_here_already_is_left_alone(bench: Bench) -> None:
    (bench.xcat.images / f"{IMAGE}.img").write_bytes(b"mine")
    retrieve(bench, FakePartners({"192.0.2.1": CONTENT}))
    assert left(bench) == {f"{IMAGE}.img": b"mine"}


def test_when_nobody_has_it_each_partners_reason_is_told(bench: Bench) -> None:
    with pytest.raises(ImageNotFoundError, match=r"mn1 does not have it; mn2: .*refused"):
        retrieve(bench, FakePartners({"192.0.2.1": {}}))


def test_without_a_library_it_is_said(bench: Bench) -> None:
    bench.partners = []
    with pytest.raises(ImageNotFoundError, match="no management node shares"):
        retrieve(bench, FakePartners({}))


def test_what_a_partners_row_says_is_never_an_option_of_a_program(bench: Bench) -> None:
    bench.partners = [
        replace(partner(1), user="-oProxyCommand=reboot", installpath="-delete"),
        replace(partner(2), installpath="../../etc"),
    ]
    partners = FakePartners({"192.0.2.1": CONTENT, "192.0.2.2": CONTENT})

    retrieve(bench, partners)

    assert {command[0] for command in partners.commands} == {"/usr/bin/ssh", "/usr/bin/scp"}
    for command in partners.commands:
        given = command[: command.index("--")]
        assert "reboot" not in " ".join(w for w in given if not w.startswith("User="))
        assert command[command.index("--") + 1].startswith("192.0.2.")
        if command[0] == "/usr/bin/ssh":
            paths = [word for word in shlex.split(command[-1]) if "/" in word]
            assert all(path.startswith("/install/") for path in paths)
