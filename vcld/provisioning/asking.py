"""Who has an image: all partner management nodes are asked at once (specification, §7)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase

from vcld import clock
from vcld.errors import (
    BackendUnavailableError,
    Blame,
    ImageNotFoundError,
    ProvisioningError,
    RemoteError,
)
from vcld.guest.interface import Tools
from vcld.programs import Output
from vcld.provisioning.library import Offer
from vcld.provisioning.partner import PartnerNode
from vcld.snapshot import ManagementNode
from vcld.store.partners import Partner, find_partners

ASK_SECONDS = 60.0
#: For what has come already, when others have used up the time.
LEAST_SECONDS = 1.0
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
