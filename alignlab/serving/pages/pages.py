"""The pages: chat, compare, label and feedback. HTML is rendered here; scripts use the API like any other client."""

from pathlib import Path
from typing import Annotated, get_args
from urllib.parse import parse_qs

import jinja2
from fastapi import APIRouter, Cookie, Depends, Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from alignlab.serving.problems import Problem, missing
from alignlab.serving.routes import COOKIE, known_user, service_of
from alignlab.serving.schemas import Category
from alignlab.serving.store.records import User

FOLDER = Path(__file__).parent
STATIC = {path.name: path for path in (FOLDER / "static").iterdir()}
STATIC["page.css"] = FOLDER.parents[1] / "reports" / "page.css"  # the design of the reports
PAGES = {"chat": "use", "compare": "use", "label": "label", "feedback": "use"}
ENVIRONMENT = jinja2.Environment(
    autoescape=True,
    loader=jinja2.FileSystemLoader(FOLDER / "templates"),
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)

pages = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


def render(name: str, status: int = 200, **values: object) -> HTMLResponse:
    """Fill in a template; pages are never cached, since they depend on the key."""
    text = ENVIRONMENT.get_template(f"{name}.html").render(page=name, **values)
    return HTMLResponse(text, status, {"Cache-Control": "no-store"})


async def visitor(request: Request, key: Annotated[str | None, Cookie(alias=COOKIE)] = None) -> User | None:
    """Return the user of the browser's cookie; None where there is none."""
    try:
        return await known_user(request, key)
    except Problem:
        return None


Visitor = Annotated[User | None, Depends(visitor)]


@pages.get("/")
async def first() -> Response:
    """Go to the first page."""
    return RedirectResponse("/pages/chat", 303)


@pages.get("/static/{name}")
async def static(name: str) -> Response:
    """Return a script or a style sheet."""
    if name not in STATIC:
        raise missing(name)
    return FileResponse(STATIC[name], headers={"Cache-Control": "no-cache"})


@pages.get("/login")
async def login_page() -> Response:
    """Return the page that asks for a key."""
    return render("login", error="", user=None, allowed=())


@pages.post("/login")
async def login(request: Request) -> Response:
    """Keep a valid key in a cookie that scripts cannot read and other sites cannot send."""
    fields = parse_qs((await request.body()).decode("ascii", "replace"))
    key = fields.get("key", [""])[0]
    try:
        user = await known_user(request, key)
    except Problem as problem:
        page = render("login", problem.status, error=problem.message, user=None, allowed=())
        page.headers.update(problem.headers)
        return page
    service_of(request).rates.take(user.name)
    response = RedirectResponse("/pages/chat", 303)
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, key, httponly=True, samesite="strict", secure=secure, max_age=30 * 86400)
    return response


@pages.post("/logout")
async def logout() -> Response:
    """Forget the key."""
    response = RedirectResponse("/login", 303)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


def add_page(name: str, role: str) -> None:
    """Add a page that a role may see; a visitor without a key is asked for one."""

    @pages.get(f"/pages/{name}", name=name)
    async def page(request: Request, user: Visitor) -> Response:
        if user is None:
            return RedirectResponse("/login", 303)
        if not user.may(role):
            return render("login", 403, error=f"this page needs a key with the role {role}", user=None, allowed=())
        service = service_of(request)
        return render(
            name,
            user=user,
            allowed=[page for page, needed in PAGES.items() if user.may(needed)],
            models=list(service.engines),
            categories=get_args(Category),
            store_text=service.settings.store_text,
            may_export=user.may("administer"),
            has_keys=not service.keyring.is_open,
        )


for page_name, needed_role in PAGES.items():
    add_page(page_name, needed_role)
