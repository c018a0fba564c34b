"""What every request passes: the token, the number of requests at once, and headers for browsers."""

from __future__ import annotations

import hmac
import json
import sys
import time
import traceback
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plait.serving.batching import BUG
from plait.serving.limits import LOCAL, Limits
from plait.serving.metrics import Metrics
from plait.serving.refusals import Refusal, too_busy

COOKIE = "plait_token"
OPEN = ("/health", "/ready", "/login", "/static/")  # paths that need no token
STREAM = "/predict/batch"

# A page runs no code but its own, and is shown in no other page.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob: data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
}


class Gate:
    """An ASGI middleware around all routes.

    With `local`, requests must name this machine as their host: a web page that its user has open elsewhere
    could otherwise ask the service by a name that leads here (DNS rebinding). A token does as much.
    """

    def __init__(
        self, app: ASGIApp, limits: Limits, metrics: Metrics, token: str | None, local: bool
    ) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._token = token
        self._local = local
        self._bytes = 0  # of the bodies of all requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500
        has_begun = False
        size = 0

        async def watched(message: Message) -> None:
            nonlocal status, has_begun
            if message["type"] == "http.response.start":
                status, has_begun = message["status"], True
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            length = len(message.get("body", b""))
            size += length
            self._bytes += length
            if self._bytes > self._limits.bodies:
                raise too_busy(1)
            return message

        self._metrics.busy.inc()
        try:
            refusal = self._refusal(scope)
            if refusal is not None:
                await _refuse(watched, refusal)
            else:
                # A stream is never in memory as a whole.
                await self._app(scope, receive if scope["path"].endswith(STREAM) else counted, watched)
        except Exception:  # the caller learns that it is a bug, and the log says which
            traceback.print_exc(file=sys.stderr)
            if not has_begun:
                await _refuse(watched, Refusal(500, BUG))
        finally:
            self._bytes -= size
            self._metrics.busy.dec()
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, status).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)

    def _refusal(self, scope: Scope) -> Refusal | None:
        """Return why a request is refused, if it is."""
        headers = Headers(scope=scope)
        path = scope["path"]
        if self._local and _hostname(headers) not in LOCAL:
            remedy = "to serve under other names, ask for a token (--token-file)"
            return Refusal(403, f"expected a request to localhost; {remedy}")
        if headers.get("sec-fetch-site") == "cross-site" and path != "/":
            return Refusal(403, "expected no request of another site's page")
        if self._token and not path.startswith(OPEN) and not self._is_allowed(headers):
            if path == "/":  # a person who opens the page
                query = scope["query_string"].decode("latin-1")
                return Refusal(303, "log in", headers={"Location": f"login?{query}" if query else "login"})
            message = "expected the header 'Authorization: Bearer TOKEN' with the token of this service"
            return Refusal(401, message, headers={"WWW-Authenticate": "Bearer"})
        return None

    def _is_allowed(self, headers: Headers) -> bool:
        """Return whether a request has the token, in its header or in the page's cookie."""
        assert self._token is not None
        kind, _, sent = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            sent = _cookie(headers)
        return hmac.compare_digest(sent.strip().encode(), self._token.encode())


def _hostname(headers: Headers) -> str:
    """Return the name of the host that a request is for, without its port."""
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def _cookie(headers: Headers) -> str:
    try:
        cookie = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    return cookie[COOKIE].value if COOKIE in cookie else ""


async def _refuse(send: Send, refusal: Refusal) -> None:
    """Send a refusal as JSON."""
    body = json.dumps(refusal.body()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    for name, value in (refusal.headers or {}).items():
        headers.append((name.lower().encode(), value.encode()))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
