"""Images from partners: complete, as sent, or not at all (fault 54)."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import signal as signals
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.daemon import eventually
from tests.fake_xcat import FakeXcat
from tests.xcat_alone import IMAGE, Bench
from vcld.errors import (
    BackendUnavailableError,
    FatalProvisioningError,
    ImageNotFoundError,
    WorkerStopped,
)
from vcld.provisioning import asking, leasing, library
from vcld.provisioning import partner as partner_module
from vcld.provisioning.xcat.retrieval import Retrieval
from vcld.states import load
from vcld.store import leases
from vcld.store.partners import Partner
from vcld.waiting import Cancellation

CONTENT = {f"{IMAGE}-sda1.gz": b"disk" * 1000, f"{IMAGE}.sfdisk": b"table"}


def partner(number: int) -> Partner:
    return Partner(
        hostname=f"mn{number}", address=f"192.0.2.{number}", user="vclstaff", port=22,
        installpath="/install",
    )  # fmt: skip


#: Stands for ssh: what a partner is asked is done here, below a folder for its address.
FAKE_SSH = r"""
import json, os, subprocess, sys, time
here = os.path.dirname(os.path.abspath(__file__))
words = sys.argv[1:]
with open(here + "/commands", "a") as log:
    log.write(json.dumps(words) + "\n")
address, text = words[words.index("--") + 1:]
while len(open(here + "/commands").readlines()) < int(open(here + "/wait").read()):
    time.sleep(0.02)
root = here + "/" + address
if not os.path.isdir(root):
    sys.exit(print("ssh: connect to host: Connection refused", file=sys.stderr) or 255)
if os.path.exists(here + "/greeting"):
    print(open(here + "/greeting").read())
    sys.stdout.flush()
done = subprocess.run(["sh", "-c", text.replace("/install/", root + "/install/")],
                      stdout=subprocess.PIPE)
out = done.stdout.replace(root.encode(), b"")
if " find " in text and os.path.exists(here + "/complaint"):
    print(open(here + "/complaint").read().strip(), file=sys.stderr)
    done.returncode = 1
if " cat " in text:
    if os.path.exists(here + "/stop"):
        sys.stdout.buffer.write(out[:3])
        sys.stdout.flush()
        with open(here + "/begun.new", "w") as begun:
            begun.write(str(os.getpid()))
        os.rename(here + "/begun.new", here + "/begun")
        time.sleep(60)
    while os.path.exists(here + "/drip") and out:
        os.write(1, out[:1])
        out = out[1:]
        time.sleep(0.05)
    with open(here + "/spoil", "r+") as spoil:
        left = int(spoil.read())
        spoil.seek(0)
        spoil.write(str(max(0, left - 1)))
    out = b"X" + out[1:] if left else out
sys.stdout.buffer.write(out)
sys.exit(done.returncode)
"""


class FakePartners:
    """Partners' files by address, behind a fake ssh; copies may be spoiled."""

    def __init__(self, folder: Path, files: dict[str, dict[str, bytes]]) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "commands").touch()
        self.spoil(0)
        self.wait_for(0)
        for address, have in files.items():
            place = folder / address / "install/image/x86_64"
            place.mkdir(parents=True)
            for name, data in have.items():
                (place / name).write_bytes(data)
        self.ssh = folder / "ssh"
        self.ssh.write_text(f"#!{sys.executable} -IS\n{FAKE_SSH}")
        self.ssh.chmod(0o755)

    def spoil(self, times: int) -> None:
        """Let the first copies have another byte in them."""
        (self.folder / "spoil").write_text(str(times))

    def wait_for(self, commands: int) -> None:
        """Let nobody answer before so many commands have been given."""
        (self.folder / "wait").write_text(str(commands))

    def say(self, what: str, text: str) -> None:
        """Let each print a ``greeting`` before its answer, or ``find`` a ``complaint``."""
        (self.folder / what).write_text(text)

    @property
    def commands(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "commands").read_text().splitlines()]

    @property
    def copied(self) -> set[str]:
        """Addresses that files came from."""
        return {words[-2] for words in self.commands if " cat " in words[-1]}


MakePartners = Callable[[dict[str, dict[str, bytes]]], FakePartners]


@pytest.fixture
def make_partners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakePartners:
    made = itertools.count()

    def make(files: dict[str, dict[str, bytes]]) -> FakePartners:
        partners = FakePartners(tmp_path / f"partners{next(made)}", files)
        monkeypatch.setattr(partner_module, "SSH", str(partners.ssh))
        return partners

    return make


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with FakeXcat(tmp_path / "xcat") as xcat:
        xcat.add_node("blade1")
        yield Bench(xcat, tmp_path, partners=[partner(1), partner(2), partner(3)])


def retrieve(bench: Bench) -> None:
    Retrieval(bench.provisioner().site, IMAGE).run()


def left(bench: Bench) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bench.xcat.images.iterdir()}


def test_the_partner_with_the_complete_image_is_chosen(
    bench: Bench, make_partners: MakePartners
) -> None:
    half = {name: data[: len(data) // 2] for name, data in CONTENT.items()}
    partners = make_partners({"192.0.2.1": half, "192.0.2.3": CONTENT})
    retrieve(bench)
    assert left(bench) == CONTENT
    assert partners.copied == {"192.0.2.3"}
    assert bench.provisioner().image_exists()


def test_what_a_partner_is_still_writing_is_not_taken_for_the_image(
    bench: Bench, make_partners: MakePartners
) -> None:
    """Fault 54: it may be capturing the image, or fetching it itself."""
    growing = {f"{IMAGE}.img": b"disk" * 100000, f".{IMAGE}.vcld-partial": b""}
    make_partners({"192.0.2.1": growing, "192.0.2.3": CONTENT})
    retrieve(bench)
    assert left(bench) == CONTENT
    for path in bench.xcat.images.iterdir():
        path.unlink()
    make_partners({"192.0.2.1": growing})
    with pytest.raises(ImageNotFoundError, match="mn1 does not have it"):
        retrieve(bench)


def test_a_spoiled_copy_is_made_anew(bench: Bench, make_partners: MakePartners) -> None:
    partners = make_partners({"192.0.2.1": CONTENT})
    partners.spoil(1)
    retrieve(bench)
    assert left(bench) == CONTENT


def test_a_copy_that_is_spoiled_again_leaves_nothing_that_counts(
    bench: Bench, make_partners: MakePartners
) -> None:
    partners = make_partners({"192.0.2.1": CONTENT})
    partners.spoil(2)
    with pytest.raises(FatalProvisioningError, match="did not arrive as it was sent"):
        retrieve(bench)
    assert left(bench) == {}


def test_what_one_partner_does_not_send_comes_from_another_that_has_the_same(
    bench: Bench, make_partners: MakePartners
) -> None:
    half = {name: data[:9] for name, data in CONTENT.items()}
    partners = make_partners({"192.0.2.1": CONTENT, "192.0.2.2": half, "192.0.2.3": CONTENT})
    partners.spoil(2)
    retrieve(bench)
    assert left(bench) == CONTENT
    assert partners.copied == {"192.0.2.1", "192.0.2.3"}


def test_a_copy_that_is_stopped_leaves_nothing_that_counts_and_is_made_later(
    bench: Bench, make_partners: MakePartners
) -> None:
    partners = make_partners({"192.0.2.1": CONTENT})
    (partners.folder / "stop").touch()
    bench.cancellation = Cancellation(
        lambda: "deleted" if (partners.folder / "begun").exists() else None,
        ask_interval_seconds=0.05,
    )
    with pytest.raises(WorkerStopped):
        retrieve(bench)
    bench.cancellation = Cancellation()
    assert left(bench) == {}
    (partners.folder / "stop").unlink()
    retrieve(bench)
    assert left(bench) == CONTENT


def test_what_a_killed_worker_left_is_removed_by_the_next(
    bench: Bench, make_partners: MakePartners
) -> None:
    """Fault 54: parts of images would fill the disk. What other nodes write there stays."""
    partners = make_partners({"192.0.2.1": CONTENT})
    partners.say("stop", "")
    pid = os.fork()
    if pid == 0:
        try:
            retrieve(bench)
        finally:
            os._exit(1)
    eventually((partners.folder / "begun").exists)
    os.kill(pid, signals.SIGKILL)
    os.waitpid(pid, 0)
    os.kill(int((partners.folder / "begun").read_text()), signals.SIGKILL)
    assert not bench.provisioner().image_exists()
    assert len(left(bench)) > 1
    others = bench.xcat.images / f".{IMAGE}.vcld-99-abcd.{IMAGE}.img"
    others.touch()
    (partners.folder / "stop").unlink()

    retrieve(bench)

    assert left(bench) == CONTENT | {others.name: b""}


def test_a_disk_without_room_is_told_and_nothing_stays(
    bench: Bench, make_partners: MakePartners, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_partners({"192.0.2.1": CONTENT})
    facts = os.statvfs(bench.xcat.images)
    none = SimpleNamespace(f_bavail=0, f_frsize=facts.f_frsize)
    monkeypatch.setattr(os, "statvfs", lambda _: none)
    with pytest.raises(FatalProvisioningError, match=r"needs 0 MB in .*, where 0 MB are free"):
        retrieve(bench)
    assert left(bench) == {}


def test_a_fetching_that_another_has_begun_anew_leaves_that_alone(
    bench: Bench, make_partners: MakePartners
) -> None:
    partners = make_partners({"192.0.2.1": CONTENT})
    partners.say("stop", "")
    mark = bench.xcat.images / f".{IMAGE}.vcld-partial"

    def taken_over() -> str | None:
        if not (partners.folder / "begun").exists():
            return None
        mark.write_text("of another")
        (bench.xcat.images / f"{IMAGE}.img").write_bytes(b"theirs")
        return "the claim was lost"

    bench.cancellation = Cancellation(taken_over, ask_interval_seconds=0.05)
    with pytest.raises(WorkerStopped):
        retrieve(bench)
    assert left(bench) == {mark.name: b"of another", f"{IMAGE}.img": b"theirs"}


@pytest.mark.parametrize("end", ["done", "failed"])
def test_how_a_partners_capture_ended_is_no_part_of_the_image(
    bench: Bench, make_partners: MakePartners, end: str
) -> None:
    """Perl daemons keep the mark of one that failed beside what it wrote."""
    mark = {f"{IMAGE}.img.capture{end}": b""}
    make_partners({"192.0.2.1": CONTENT | mark, "192.0.2.2": mark})
    if end == "done":
        retrieve(bench)
        assert left(bench) == CONTENT
    else:
        with pytest.raises(ImageNotFoundError, match="mn1 does not have it; mn2 does not"):
            retrieve(bench)


def test_a_copy_that_only_drips_in_is_given_up(
    bench: Bench, make_partners: MakePartners, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_partners({"192.0.2.1": CONTENT}).say("drip", "")
    monkeypatch.setattr(library, "PATIENCE_SECONDS", 0.5)
    with pytest.raises(FatalProvisioningError, match=r"only \d+ bytes came within [01] s"):
        retrieve(bench)


def test_long_sums_and_copies_are_told_to_a_clusters_parent(
    bench: Bench, make_partners: MakePartners, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives up on a child of which it hears nothing for 30 minutes."""
    make_partners({"192.0.2.1": CONTENT})
    monkeypatch.setattr(partner_module, "TELL_SECONDS", 0.0)
    retrieve(bench)
    texts = {text for name, text in bench.told if name == "copyfrompartnerMN"}
    assert "mn1 sums up 0 MB" in texts
    assert {f"copying {name} from mn1: 0 of 0 MB" for name in CONTENT} <= texts


def test_leases_are_renewed_while_a_large_file_goes_to_the_disk(
    bench: Bench, make_partners: MakePartners, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take longer than a lease lasts, and all would have to come once more."""
    make_partners({"192.0.2.1": CONTENT})
    monkeypatch.setattr(leasing, "RENEW_SECONDS", 0.02)
    run, renewed, during = bench._run, itertools.count(), []

    def counted(work: Callable[..., Any], *args: Any, **facts: Any) -> Any:
        if work is leases.renew:
            next(renewed)
        return run(work, *args, **facts)

    def slow(_fd: int) -> None:
        before = next(renewed)
        time.sleep(0.5)
        during.append(next(renewed) - before)

    monkeypatch.setattr(bench, "_run", counted)
    monkeypatch.setattr(os, "fsync", slow)
    retrieve(bench)
    assert len(during) == len(CONTENT)
    assert min(during) > 3


def test_an_image_that_is_here_already_is_left_alone(
    bench: Bench, make_partners: MakePartners
) -> None:
    (bench.xcat.images / f"{IMAGE}.img").write_bytes(b"mine")
    make_partners({"192.0.2.1": CONTENT})
    retrieve(bench)
    assert left(bench) == {f"{IMAGE}.img": b"mine"}


def test_a_shell_that_prints_at_its_start_is_told_and_no_file_is_lost_by_it(
    bench: Bench, make_partners: MakePartners
) -> None:
    """The first file of the list was dropped with it, and the image would have lacked it."""
    make_partners({"192.0.2.1": CONTENT}).say("greeting", "Welcome to mn1")
    with pytest.raises(
        ImageNotFoundError,
        match=r"vclstaff@192\.0\.2\.1 prints 'Welcome to mn1.*must print nothing",
    ):
        retrieve(bench)
    assert left(bench) == {}


@pytest.mark.parametrize(
    "complaint",
    [
        "find: '/install/image/x86_64': Input/output error",
        f"find: '/install/image/x86_64/{IMAGE}.img': Permission denied",
    ],
)
def test_a_folder_that_could_not_be_read_to_its_end_holds_no_whole_image(
    bench: Bench, make_partners: MakePartners, complaint: str
) -> None:
    make_partners({"192.0.2.1": CONTENT}).say("complaint", complaint)
    with pytest.raises(ImageNotFoundError, match=f"mn1: {complaint}"):
        retrieve(bench)


def test_why_a_partner_finds_nothing_is_told(bench: Bench, make_partners: MakePartners) -> None:
    make_partners({"192.0.2.1": {}}).say("complaint", "find: unrecognized: -printf")
    with pytest.raises(ImageNotFoundError, match="mn1: find: unrecognized: -printf"):
        retrieve(bench)


@pytest.mark.parametrize(
    "complaint",
    [
        "find: '/install/images/x86_64': No such file or directory",
        "find: '/install/image/x86': Permission denied",
        "find: '/install/image/x86_64/other-v1.img': Too many levels of symbolic links",
    ],
)
def test_trouble_with_what_is_not_the_images_does_not_matter(
    bench: Bench, make_partners: MakePartners, complaint: str
) -> None:
    make_partners({"192.0.2.1": CONTENT}).say("complaint", complaint)
    retrieve(bench)
    assert left(bench) == CONTENT


def test_partners_that_hang_are_waited_for_together(
    bench: Bench, make_partners: MakePartners, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.partners = [partner(number) for number in range(1, 9)]
    make_partners({}).wait_for(99)
    monkeypatch.setattr(asking, "ASK_SECONDS", 3.0)
    monkeypatch.setattr(asking, "LEAST_SECONDS", 0.1)
    began = time.monotonic()
    with pytest.raises(ImageNotFoundError, match=r"mn8: find on vclstaff@192\.0\.2\.8 did not end"):
        retrieve(bench)
    assert time.monotonic() - began < 18


def test_when_nobody_has_it_each_partners_reason_is_told(
    bench: Bench, make_partners: MakePartners
) -> None:
    make_partners({"192.0.2.1": {}})
    with pytest.raises(ImageNotFoundError, match=r"mn1 does not have it; mn2: .*refused"):
        retrieve(bench)


def test_without_a_library_it_is_said(bench: Bench, make_partners: MakePartners) -> None:
    bench.partners = []
    make_partners({})
    with pytest.raises(ImageNotFoundError, match="no management node shares"):
        retrieve(bench)


def test_what_a_partners_row_says_is_never_an_option_of_a_program(
    bench: Bench, make_partners: MakePartners
) -> None:
    bench.partners = [
        replace(partner(1), user="-oProxyCommand=reboot", installpath="-delete"),
        replace(partner(2), installpath="../../etc"),
    ]
    partners = make_partners({"192.0.2.1": CONTENT, "192.0.2.2": CONTENT})

    retrieve(bench)

    texts = [shlex.split(words[-1]) for words in partners.commands]
    assert {tuple(words[:3]) for words in texts} == {
        ("env", "LC_ALL=C", command) for command in ("find", "sha256sum", "cat")
    }
    for words in partners.commands:
        given = words[: words.index("--")]
        assert "reboot" not in " ".join(w for w in given if not w.startswith("User="))
        assert words[-2].startswith("192.0.2.")
        paths = [word for word in shlex.split(words[-1]) if "/" in word]
        assert all(path.startswith("/install/") for path in paths)


def test_partners_are_asked_at_the_same_time(bench: Bench, make_partners: MakePartners) -> None:
    """Each ssh waits until all three have been started."""
    partners = make_partners({f"192.0.2.{number}": CONTENT for number in (1, 2, 3)})
    partners.wait_for(3)

    retrieve(bench)

    assert left(bench) == CONTENT


def test_a_lease_that_is_lost_while_partners_are_asked_says_nothing_of_the_image(
    bench: Bench, make_partners: MakePartners, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next attempt at the request fetches it; a missing image would fail the request."""
    make_partners({"192.0.2.1": CONTENT}).wait_for(99)
    monkeypatch.setattr(leasing, "RENEW_SECONDS", 0.01)
    run = bench._run
    monkeypatch.setattr(
        bench, "_run", lambda work, *a, **k: work is not leases.renew and run(work, *a, **k)
    )
    work = SimpleNamespace(provisioner=bench.provisioner(), progress=lambda *_: None)
    with pytest.raises(BackendUnavailableError, match="a lease was lost"):
        load._get_image(cast(Any, work), IMAGE)
