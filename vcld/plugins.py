"""Finding a plugin's class by its module name, imported only when it is used."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import TypeVar, cast

from vcld.errors import UnknownModuleError

T = TypeVar("T")


@functools.cache
def _outside(group: str) -> Mapping[str, str]:
    return {point.name: point.value for point in entry_points(group=group)}


def find_class(
    group: str, table: Mapping[str, str], name: str | None, kind: type[T]
) -> Callable[..., T]:
    """Import the class registered for a module name.

    Our own ``table`` comes first, then the entry points of ``group``, by which a package
    of the site can bring its own.

    Raises:
        UnknownModuleError: nothing is registered for the name, or it does not import.
    """
    target = table.get(name or "") or _outside(group).get(name or "")
    if target is None:
        known = ", ".join(sorted({**_outside(group), **table}))
        raise UnknownModuleError(f"no {group} plugin for module {name!r}; known are {known}")
    module_name, _, class_name = target.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as err:
        msg = f"the {group} plugin {name!r} ({target}) cannot be imported: {err}"
        raise UnknownModuleError(msg) from err
    if not (isinstance(found, type) and issubclass(found, kind)):
        msg = f"the {group} plugin {name!r} ({target}) is not a {kind.__name__}"
        raise UnknownModuleError(msg)
    return cast("Callable[..., T]", found)
