"""Making an image of a blade's disk (provisioning specification, §9.5).

Either the blade starts into a network boot environment that writes its disk to the management
node (``nodeset NODE image``, or ``runimage=TASK`` of present xCAT), or xCAT copies the running
system (``imgcapture``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from vcld import clock
from vcld.errors import Blame, FatalProvisioningError, LoadTimeoutError
from vcld.guest.interface import EndState, Guest
from vcld.provisioning.interface import PowerAction, PowerState
from vcld.provisioning.xcat import options, plan, power
from vcld.provisioning.xcat.failures import XcatUnavailableError
from vcld.provisioning.xcat.repository import DONE, FAILED
from vcld.provisioning.xcat.site import XcatSite
from vcld.waiting import wait_until

#: How long a computer that shuts itself down may take before it is switched off.
OFF_WAIT_SECONDS = 120.0
TELL_SECONDS = 300.0
#: Methods of imgcapture(1).
RUNNING_METHODS = frozenset({"sysclone", "diskless"})
READABLE = 0o644


def capture(site: XcatSite, guest: Guest, image: str) -> None:
    """Store the node's disk as ``image``; the blade is left as the method leaves it.

    Raises:
        FatalProvisioningError: the image exists, or could not be written.
        LoadTimeoutError: nothing moved for too long.
    """
    if plan.make_plan(site, image) is not None:
        raise FatalProvisioningError(f"image {image} exists already", blame=Blame.IMAGE)
    definition = site.facts.definition_now()
    method = site.options.capture_method
    if method in RUNNING_METHODS:
        guest.pre_capture(EndState.ON)
        site.tools.progress("info", f"xCAT captures {image} from {site.node} ({method})")
        site.xcat.capture_image(site.node, method, image, site.options.capture_limit)
        if site.facts.osimage(image, since=clock.monotonic()) is None:
            raise FatalProvisioningError(f"imgcapture ended without an osimage {image}")
        return
    problem = options.capture_problem(method)
    if problem is not None:
        raise FatalProvisioningError(problem, blame=Blame.MANAGEMENT_NODE)
    # From here on nobody takes what is in the folder for an image. The system is not shut down
    # for one that cannot be written, nor for a next boot that xCAT refuses.
    with _written(site, image) as folder, _boot_from_disk_afterwards(site):
        _set_next_boot(site, image, definition)
        guest.pre_capture(EndState.OFF)
        _await_off(site)
        site.tools.progress("info", f"starting {site.node} to write {image}")
        power.switch(site, PowerAction.ON)
        _watch(site, image, folder)


def _set_next_boot(site: XcatSite, image: str, definition: Mapping[str, str]) -> None:
    """Let the node's network boot environment write the image of its disk at the next start."""
    arch = site.reservation.image.architecture or "x86_64"
    site.changes.change_node(site.node, {"os": "image", "arch": arch, "profile": image})
    plan.set_group(site, plan.CAPTURE_GROUP, definition)
    site.changes.set_next_boot(site.node, site.options.capture_method)


def _await_off(site: XcatSite) -> None:
    """Wait until the node has shut itself down; switch it off when it does not."""
    went_off = wait_until(
        lambda: site.facts.power() is PowerState.OFF,
        site.tools.cancellation,
        limit_seconds=OFF_WAIT_SECONDS,
        first_pause_seconds=0.5,
        longest_pause_seconds=5.0,
    )
    if not went_off:
        power.switch(site, PowerAction.OFF)


@contextlib.contextmanager
def _written(site: XcatSite, image: str) -> Iterator[Path]:
    """The folder for the image, which counts as partial until the block ends well."""
    repository = site.repository
    folder = repository.folder
    mark = repository.partial_mark(image, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
        _remove(site, image, folder)  # what an attempt that died has left
    except OSError as err:
        raise FatalProvisioningError(
            f"images cannot be written to {folder}: {err.strerror}", blame=Blame.MANAGEMENT_NODE
        ) from err
    try:
        yield folder
        _let_read(site, image, folder)
        mark.unlink(missing_ok=True)
    except BaseException as err:
        try:
            _remove(site, image, folder)
            mark.unlink(missing_ok=True)
        except OSError as other:
            site.tools.log.warning("a failed capture stays", image=image, reason=str(other))
        if isinstance(err, OSError):
            raise FatalProvisioningError(
                f"{image} cannot be kept in {folder}: {err.strerror}", blame=Blame.MANAGEMENT_NODE
            ) from err
        raise


def _let_read(site: XcatSite, image: str, folder: Path) -> None:
    """Partners read it. A file server that keeps files to those who wrote them is its own."""
    for path in site.repository.all_files(image, folder):
        try:
            path.chmod(READABLE)
        except OSError as err:
            site.tools.log.warning(
                "partners may not be able to read the image", file=str(path), reason=err.strerror
            )


def _remove(site: XcatSite, image: str, folder: Path) -> None:
    marks = [folder / f"{image}{end}" for end in (DONE, FAILED)]
    for path in [*site.repository.all_files(image, folder), *marks]:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _boot_from_disk_afterwards(site: XcatSite) -> Iterator[None]:
    """Whatever happens, the next start must not write the image once more."""
    try:
        yield
    finally:
        site.changes.settle("nodeset", site.options.capture_method)
        site.xcat.tidy_up("nodeset", site.node, "boot")


def _watch(site: XcatSite, image: str, folder: Path) -> None:
    """Wait for the mark of the end; growth, or another state of the node, is progress."""
    limits = site.options
    began = moved = told = clock.monotonic()
    last: object = None
    while True:
        if (folder / f"{image}{FAILED}").exists():
            raise FatalProvisioningError(
                f"writing {image} failed on {site.node}: see its console, and the space in {folder}"
            )
        size = sum(map(_size, site.repository.all_files(image, folder)))
        if (folder / f"{image}{DONE}").exists():
            (folder / f"{image}{DONE}").unlink(missing_ok=True)
            if not size:
                raise FatalProvisioningError(f"{image} is said to be written, but it is empty")
            return
        state, next_boot = _see(site)
        now = clock.monotonic()
        sight = (size, state, next_boot)
        if sight != last:
            last, moved = sight, now
        elif next_boot == "boot" and size:
            return  # the environment has let go of the node, and nothing grows any more
        for since, limit in ((moved, limits.capture_no_progress), (began, limits.capture_limit)):
            if now - since > limit:
                raise LoadTimeoutError(
                    f"{image} was not written within {limit:g} s: {size >> 20} MB are there,"
                    f" {site.node} is {state or 'not seen'}",
                    blame=Blame.NOBODY,
                )
        if now - told > TELL_SECONDS:
            told = now
            site.tools.progress("info", f"{image}: {size >> 20} MB are written")
        site.tools.cancellation.wait(limits.capture_poll)


def _size(path: Path) -> int:
    """Bytes; none of a file that is gone by now, or was renamed."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _see(site: XcatSite) -> tuple[str, str]:
    """What nodestat says, and the next boot; empty while xCAT is away."""
    try:
        state = site.facts.node_state(max_age=site.options.capture_poll)
        return state, site.facts.definition(max_age=site.options.capture_poll).get("currstate", "")
    except XcatUnavailableError:
        return "", ""
