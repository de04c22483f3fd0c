"""Who may see the dashboard: everybody on this machine, and beyond it only those who know the token."""

import secrets
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from alignlab.serving.limits import Application, Message, Receive, Send

COOKIE = "alignlab-dashboard"
OPEN = ("/login", "/static/")  # what a visitor without the token may ask for


class TokenGate:
    """Sends visitors without the token to the page that asks for it."""

    def __init__(self, app: Application, token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith(OPEN) and not self.knows(Request(scope)):
            asks = scope["method"] == "GET" and "text/html" in Request(scope).headers.get("accept", "")
            refused = (
                RedirectResponse("/login", 303) if asks else Response("give the token", 401, media_type="text/plain")
            )
            await refused(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def knows(self, request: Request) -> bool:
        """Return whether a request holds the token: as a bearer token, or in the browser's cookie."""
        kind, _, bearer = request.headers.get("authorization", "").partition(" ")
        given = (bearer if kind.lower() == "bearer" else "", request.cookies.get(COOKIE, ""))
        return any(same(text, self.token) for text in given)


def same(given: str, token: str) -> bool:
    """Return whether two tokens are equal; takes the same time for all of them."""
    return secrets.compare_digest(given.encode("utf-8", "replace"), token.encode())


async def sign_in(request: Request, token: str) -> Response | None:
    """Return the response to a right token, which keeps it in a cookie; None for a wrong one."""
    fields = parse_qs((await request.body()).decode("ascii", "replace"))
    if not same(fields.get("token", [""])[0].strip(), token):
        return None
    response = RedirectResponse("/", 303)
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure, max_age=30 * 86400)
    return response
