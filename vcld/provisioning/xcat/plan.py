"""How an image is put on a node: which definition it needs, and which ``nodeset``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vcld.errors import ImageNotFoundError
from vcld.provisioning.xcat.repository import check_name
from vcld.provisioning.xcat.site import NodeSite
from vcld.snapshot import Reservation

#: The group of nodes whose disk is captured; its postscripts are not for users' nodes.
CAPTURE_GROUP = "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What has to be so before a node starts into its image."""

    image: str
    #: The argument of ``nodeset``.
    action: str
    #: Attributes of the node.
    attributes: Mapping[str, str] = field(default_factory=dict)
    #: A group the node must be in, besides its others.
    group: str
    #: Attributes of an osimage object that has to be made first.
    osimage: Mapping[str, str] = field(default_factory=dict)

    def differences(self, definition: Mapping[str, str]) -> dict[str, str]:
        """Attributes of the node that are not as planned."""
        return {k: v for k, v in self.attributes.items() if definition.get(k, "") != v}


def make_plan(site: NodeSite, image: str | None = None) -> Plan | None:
    """Find out how the image is loaded; None when it is not here.

    An osimage object of its name comes first; then the files of a captured image, for the
    older ``nodeset NODE install``; then the installation tree of a kickstart image, of which an
    osimage object is made.
    """
    row = site.wanted
    name = image or row.imagename
    check_name(name)
    group = group_of(site)
    if site.facts.osimage(name) is not None:
        return Plan(image=name, action=f"osimage={name}", group=group)
    if site.repository.files(name):
        facts = {"os": "image", "arch": row.architecture or "x86_64", "profile": name}
        return Plan(image=name, action="install", attributes=facts, group=group)
    # A tree says nothing of an image that is only being captured.
    is_installed = row.os_installtype == "kickstart" and not row.is_new
    tree = site.repository.tree() if is_installed else None
    if tree is None:
        return None
    template = site.repository.template(name)
    if template is None:
        raise ImageNotFoundError(
            f"there is no kickstart template for {name}: put {name}.tmpl, or default.tmpl, into"
            f" the folder of its system below {site.repository.install}/custom/install"
        )
    osimage = {
        "profile": name, "imagetype": "linux", "provmethod": "install", "osname": "Linux",
        "osvers": tree.parent.name, "osarch": tree.name, "pkgdir": str(tree),
        "template": str(template),
    }  # fmt: skip
    return Plan(image=name, action=f"osimage={name}", group=group, osimage=osimage)


def group_of(site: NodeSite) -> str:
    """The postscript group of the image's project (§9.1)."""
    project = site.wanted.project
    return "compute" if project in {"", "vcl"} else project


def apply_definition(site: NodeSite, plan: Plan, definition: Mapping[str, str]) -> None:
    """Change what differs, and nothing else: the node's other groups are its own."""
    if plan.osimage:
        site.changes.define_osimage(plan.image, plan.osimage)
    changed = plan.differences(definition)
    if changed:
        site.changes.change_node(site.node, changed)
    set_group(site, plan.group, definition)


def set_group(site: NodeSite, group: str, definition: Mapping[str, str]) -> None:
    """Put the node into a group; out of that of captures where it is not that one."""
    groups = [name.strip() for name in definition.get("groups", "").split(",")]
    if group not in groups:
        site.changes.change_node(site.node, {"groups": group}, mode="-p")
    if group != CAPTURE_GROUP and CAPTURE_GROUP in groups:
        site.changes.change_node(site.node, {"groups": CAPTURE_GROUP}, mode="-m")


def captured_name(reservation: Reservation) -> str | None:
    """The imagename of a captured kickstart system, or None when it stays (§9.4).

    ``rhel6-base12-v1`` becomes ``rh6image-base12-v1``, ``centos7-…`` ``centos7image-…``.
    """
    image, name = reservation.image, reservation.imagerevision.imagename
    if image.os_installtype != "kickstart" or not name.startswith(f"{image.os_name}-"):
        return None
    family = "rh" + image.os_name[len("rhel") :] if image.os_name.startswith("rhel") else None
    return f"{family or image.os_name}image{name[len(image.os_name) :]}"
