"""Calls to the web site's XML-RPC interface (VCL daemon specification §16)."""

from __future__ import annotations

import http.client
import xmlrpc.client
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from vcld.config import Secret, Settings
from vcld.errors import BackendUnavailableError, Blame, ConfigError, FatalProvisioningError


@dataclass(frozen=True, slots=True)
class BlockResult:
    """What the web site did for a block time."""

    #: success, warning, error or completed
    status: str
    allocated: int
    unallocated: int
    message: str


class WebApi:
    """The web site, as the daemon sees it. Each call has a time limit."""

    def __init__(
        self, url: str, username: str, password: Secret | None, *, timeout_seconds: float
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError(f"xmlrpc_url={url!r} is not an http or https address")
        headers = [
            ("X-User", username),
            ("X-Pass", password.reveal() if password else ""),
            ("X-APIVERSION", "2"),
        ]
        self._host = parts.netloc
        self._proxy = xmlrpc.client.ServerProxy(
            url,
            transport=_transport(parts.scheme, timeout_seconds),
            headers=headers,
            allow_none=True,
        )

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The configured web site.

        Raises:
            ConfigError: xmlrpc_url is not set or is no address.
        """
        if not settings.xmlrpc_url:
            raise ConfigError("the web site cannot be asked: set xmlrpc_url, xmlrpc_username"
                              " and xmlrpc_pass in vcld.conf")  # fmt: skip
        return cls(
            settings.xmlrpc_url,
            settings.xmlrpc_username,
            settings.xmlrpc_pass,
            timeout_seconds=settings.xmlrpc_timeout_seconds,
        )

    def process_block_time(self, blocktimeid: int) -> BlockResult:
        """Let the web site allocate the computers of a block time; may be repeated.

        Raises:
            BackendUnavailableError: no usable answer came.
            FatalProvisioningError: the web site refused.
        """
        answer = self._call("XMLRPCprocessBlockTime", blocktimeid, 1)
        return BlockResult(
            str(answer.get("status", "")),
            _number(answer.get("allocated")),
            _number(answer.get("unallocated")),
            str(answer.get("errormsg") or answer.get("warningmsg") or ""),
        )

    def auto_capture(self, requestid: int) -> bool:
        """Let the web site turn a pending imaging request into a capture."""
        return self._call("XMLRPCautoCapture", requestid).get("status") == "success"

    def check_crypt_secrets(self, reservationid: int) -> bool:
        """Let the web site encrypt missing secrets for this management node."""
        return self._call("XMLRPCcheckCryptSecrets", reservationid).get("status") == "success"

    def _call(self, name: str, *arguments: Any) -> dict[str, Any]:
        try:
            answer = getattr(self._proxy, name)(*arguments)
        except xmlrpc.client.ProtocolError as err:
            # The error's own text may show the headers.
            text = f"web site {self._host}: {name}: HTTP {err.errcode} {err.errmsg}"
            if err.errcode in {401, 403}:
                raise FatalProvisioningError(text, blame=Blame.MANAGEMENT_NODE) from None
            raise BackendUnavailableError(text, blame=Blame.MANAGEMENT_NODE) from None
        except xmlrpc.client.Fault as err:
            raise FatalProvisioningError(
                f"web site {self._host}: {name} was refused: {err.faultString}",
                blame=Blame.MANAGEMENT_NODE,
            ) from None
        except (OSError, http.client.HTTPException, ValueError, SyntaxError) as err:
            raise BackendUnavailableError(
                f"web site {self._host}: {name} got no answer: {type(err).__name__}: {err}",
                blame=Blame.MANAGEMENT_NODE,
            ) from None
        if not isinstance(answer, dict):
            raise BackendUnavailableError(
                f"web site {self._host}: {name} answered with a {type(answer).__name__}",
                blame=Blame.MANAGEMENT_NODE,
            )
        return answer


def _number(value: object) -> int:
    return int(value) if isinstance(value, int | str) and str(value).isdecimal() else 0


def _transport(scheme: str, timeout_seconds: float) -> xmlrpc.client.Transport:
    kind = xmlrpc.client.SafeTransport if scheme == "https" else xmlrpc.client.Transport

    class Limited(kind):  # type: ignore[valid-type, misc]
        def make_connection(self, host: Any) -> Any:
            connection = super().make_connection(host)
            connection.timeout = timeout_seconds
            return connection

    return Limited()
