"""Refusal of requests that call the server by a foreign name: those of foreign pages (DNS rebinding)."""

import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
"""How a browser on this machine calls it."""

ANY = "*"

_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[^:/@\[\]]+))(?::\d*)?", re.IGNORECASE)


class KnownHost:
    """Middleware: answers 400 where the header Host has another name than these.

    Args:
        names: host names and addresses, IPv6 without brackets; `ANY` among them lets every name pass.
    """

    def __init__(self, app: ASGIApp, names: Sequence[str]) -> None:
        self.app = app
        self.names = [name.lower() for name in names]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan" or ANY in self.names or _name(scope) in self.names:
            await self.app(scope, receive, send)
            return
        detail = f"a request has to call this server {' or '.join(self.names)}; its header Host does not"
        await JSONResponse({"detail": detail}, 400)(scope, receive, send)


def _name(scope: Scope) -> str:
    """Without port and brackets; empty for none."""
    found = _HOST.fullmatch(Headers(scope=scope).get("host", ""))
    return (found["v6"] or found["name"]).lower() if found else ""
