"""What goes wrong with xCAT, and whose fault it is."""

from __future__ import annotations

from vcld.errors import (
    BackendUnavailableError,
    Blame,
    FatalProvisioningError,
    LoadTimeoutError,
    ProvisioningError,
)


class XcatUnavailableError(BackendUnavailableError):
    """xCAT's daemon, or a command of it, does not answer. No computer is at fault."""

    def __init__(self, message: str, *, blame: Blame = Blame.MANAGEMENT_NODE) -> None:
        super().__init__(message, blame=blame)


class XcatMissingError(FatalProvisioningError):
    """xCAT's commands are not installed where they should be."""

    def __init__(self, message: str, *, blame: Blame = Blame.MANAGEMENT_NODE) -> None:
        super().__init__(message, blame=blame)


class XcatRefusedError(ProvisioningError):
    """xCAT answers, but does not do what it was asked: its words are in the message."""


class BmcUnreachableError(ProvisioningError):
    """The node's management controller does not answer, however often it is asked."""


class NodeUndefinedError(FatalProvisioningError):
    """xCAT does not know the node, or not enough about it. An administrator must define it."""


class NodeNeverBootedError(LoadTimeoutError):
    """The node has power and gives no sign of life."""


class InstallStuckError(LoadTimeoutError):
    """The node began to install and did not come to an end."""


class ImageBrokenError(FatalProvisioningError):
    """The installation of the image fails by itself. The node is not at fault."""

    def __init__(self, message: str, *, blame: Blame = Blame.IMAGE) -> None:
        super().__init__(message, blame=blame)
