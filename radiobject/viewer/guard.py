"""Who may ask: only this machine, only with the secret in the URL, only from our own page."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEADERS = (
    ("Cache-Control", "no-store"),
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("Cross-Origin-Embedder-Policy", "require-corp"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)
SECURITY_HEADERS = tuple((name.lower().encode(), value.encode()) for name, value in _HEADERS)
"""Sent with every answer: nothing is cached, framed, sniffed, or loaded from elsewhere."""

_SAFE_METHODS = frozenset({"GET", "HEAD"})
_OWN_PAGE = frozenset({"same-origin", "none"})


class Guard:
    """Let a request through if it names our host and knows the token, else answer 403.

    The token is the first part of the path, so that every relative link of the page carries it
    and no cookie is needed, which other servers on the same host would be sent too.

    Parameters
    ----------
    app : ASGI application
        What is guarded; it sees the token as its ``root_path``.
    token : str
        The secret.
    hosts : collection of str
        The accepted values of the Host header. A page that made its own name point to this
        machine (DNS rebinding) would send that name.
    writes : collection of str
        The only paths, behind the token, that may be sent something: by our own page, whose
        browser names its origin.
    """

    def __init__(
        self, app: App, token: str, hosts: Collection[str], writes: Collection[str] = ()
    ) -> None:
        self._writes = frozenset(f"/{token}{path}" for path in writes)
        self._app = app
        self._token = token.encode()
        self._hosts = frozenset(host.encode() for host in hosts)
        self._origins = frozenset(b"http://" + host for host in self._hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in SECURITY_HEADERS}
                kept = [pair for pair in message.get("headers", ()) if pair[0].lower() not in own]
                message = {**message, "headers": [*kept, *SECURITY_HEADERS]}
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await _answer(send_guarded, *refusal)
            return
        root = "/" + self._token.decode()
        await self._app({**scope, "root_path": root}, receive, send_guarded)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = [(name.lower(), value) for name, value in scope["headers"]]
        values = {name: [v for n, v in headers if n == name] for name, _ in headers}
        hosts = values.get(b"host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return 403, "this host is not ours"
        if any(origin.lower() not in self._origins for origin in values.get(b"origin", [])):
            return 403, "another site asked"
        sites = values.get(b"sec-fetch-site", [])
        if any(site.decode("latin-1") not in _OWN_PAGE for site in sites):
            return 403, "another site asked"
        given = scope["path"].split("/", 2)[1] if "/" in scope["path"] else ""
        if not hmac.compare_digest(given.encode(), self._token):
            return 403, "the token of the URL is missing or wrong; use the URL that was printed"
        if scope["method"] not in _SAFE_METHODS:
            named = b"origin" in values and scope["method"] == "POST"
            if scope["path"] not in self._writes or not named:
                return 405, "the viewer only reads"
        return None


async def _answer(send: Send, status: int, text: str) -> None:
    body = text.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
