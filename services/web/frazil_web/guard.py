"""What every request passes: host, same-origin mutations, small bodies; and the headers every answer carries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MUTATION_HEADER = "x-frazil"  # a custom header cannot be sent across origins without a preflight, which nobody answers
MOST_BODY_BYTES = 64 * 1024
_READS = {"GET", "HEAD", "OPTIONS"}

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """ASGI middleware around the whole service."""

    def __init__(self, app: ASGIApp, allowed_hosts: Sequence[str]) -> None:
        """Answer only requests whose Host is one of `allowed_hosts` (without port; "*" means any)."""
        self._app = app
        self._hosts = frozenset(host.lower() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on and add the headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        if refusal is None:
            await self._app(scope, receive, send_guarded)
        else:
            await _refuse(refusal, send_guarded)

    def _refusal(self, method: str, headers: Headers) -> tuple[int, str, str] | None:
        host = headers.get("host", "")
        if "*" not in self._hosts and (urlsplit(f"//{host}").hostname or "") not in self._hosts:
            return 400, "HOST_REFUSED", f"This page is not served under the name {host!r}; see frazil-web --allowed-host."
        if method in _READS:
            return None
        origin = headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        if foreign or headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
            return 403, "ORIGIN_REFUSED", "Changes are accepted only from Frazil's own page."
        if MUTATION_HEADER not in headers:
            return 403, "HEADER_MISSING", "Changes need the header X-Frazil: 1."
        length = headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MOST_BODY_BYTES:
            return 413, "BODY_REFUSED", f"A request needs a Content-Length of at most {MOST_BODY_BYTES} bytes."
        return None


async def _refuse(refusal: tuple[int, str, str], send: Send) -> None:
    status, reason, sentence = refusal
    body = json.dumps({"reason": reason, "sentence": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
