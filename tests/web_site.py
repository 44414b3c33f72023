"""A fake of VCL's web site, as far as a management node calls it by XML-RPC."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xmlrpc.server import SimpleXMLRPCRequestHandler, SimpleXMLRPCServer

PASSWORD = "pässwörd-17"
USER = "vclsystem@Local"
PATH = "/vcl/index.php"


class FakeWebSite(SimpleXMLRPCServer):
    """A fake of VCL's web site: knows one user, and gives the answer it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler, logRequests=False, allow_none=True)
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.answer: Any = {"status": "success"}
        #: Sent instead of an answer: an HTTP status with a body.
        self.page: tuple[int, bytes] | None = None
        self.register_instance(self)
        self.scheme = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}{PATH}?mode=xmlrpccall"

    def _dispatch(self, method: str, params: Any) -> Any:
        self.calls.append((method, tuple(params)))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer(method, params) if callable(self.answer) else self.answer


class Handler(SimpleXMLRPCRequestHandler):
    rpc_paths = (f"{PATH}?mode=xmlrpccall",)

    def do_POST(self) -> None:  # noqa: N802 - the library's name for it
        site = self.server
        assert isinstance(site, FakeWebSite)
        password = (self.headers["X-Pass"] or "").encode("latin-1").decode()
        known = (self.headers["X-User"], password, self.headers["X-APIVERSION"])
        if site.page is None and known == (USER, PASSWORD, "2"):
            super().do_POST()
            return
        status, body = site.page or (401, b"who are you?")
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(site: FakeWebSite) -> Iterator[FakeWebSite]:
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        site.shutdown()
        thread.join()
        site.server_close()
