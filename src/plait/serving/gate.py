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
from plait.serving.limits import Limits
from plait.serving.metrics import Metrics
from plait.serving.refusals import Refusal, too_busy

COOKIE = "plait_token"
LOCAL = ("127.0.0.1", "localhost", "::1")  # names of this machine
OPEN = ("/health", "/ready", "/login", "/static/")  # paths that need no token
CHEAP = ("/health", "/ready", "/metrics", "/static/")  # paths that are answered however busy the service is

# A page runs no code but its own, and is shown in no other page.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
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
        self._busy = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500
        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal status, has_begun
            if message["type"] == "http.response.start":
                status, has_begun = message["status"], True
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        self._count(1)
        try:
            refusal = self._refusal(scope)
            if refusal is not None:
                await _refuse(watched, refusal)
            else:
                await self._app(scope, receive, watched)
        except Exception:  # the caller learns that it is a bug, and the log says which
            traceback.print_exc(file=sys.stderr)
            if not has_begun:
                await _refuse(watched, Refusal(500, BUG))
        finally:
            self._count(-1)
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, status).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)

    def _count(self, change: int) -> None:
        self._busy += change
        self._metrics.busy.set(self._busy)

    def _refusal(self, scope: Scope) -> Refusal | None:
        """Return why a request is refused, if it is."""
        path = scope["path"]
        if self._local and _hostname(Headers(scope=scope)) not in LOCAL:
            message = (
                "expected a request to localhost; to serve under other names, ask for a token (--token-file)"
            )
            return Refusal(403, message)
        if self._token and not path.startswith(OPEN) and not self._is_allowed(Headers(scope=scope)):
            if path == "/":  # a person who opens the page
                query = scope["query_string"].decode("latin-1")
                return Refusal(303, "log in", headers={"Location": f"login?{query}" if query else "login"})
            message = "expected the header 'Authorization: Bearer TOKEN' with the token of this service"
            return Refusal(401, message, headers={"WWW-Authenticate": "Bearer"})
        if self._busy > self._limits.requests and not path.startswith(CHEAP):
            return too_busy(1)
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
