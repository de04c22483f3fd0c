"""The dashboard's pages: read only, rendered here, with one script that follows events.

Names of runs are looked up in the index, so that a request can name no other path. Templates escape all text.
"""

from asyncio import to_thread
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from alignlab.dashboard import compare, follow, run_page, sweep_page
from alignlab.dashboard.access import TokenGate, sign_in
from alignlab.dashboard.runs import Index, Run
from alignlab.errors import Explained
from alignlab.reports.explanations_page import numbered
from alignlab.reports.measure_names import label
from alignlab.reports.run_results import HEADLINES
from alignlab.reports.templates import unbroken
from alignlab.serving.limits import Application, Guard
from alignlab.serving.metrics import Metrics

FOLDER = Path(__file__).parent
STATIC = {path.name: path for path in (FOLDER / "static").iterdir()}
STATIC |= {name: FOLDER.parent / "reports" / name for name in ("page.css", "explanation.css")}  # the reports' design
PAGE_SIZE = 25  # runs
COLUMNS = 4  # measures in the table of runs
MAX_BODY, BODY_TIMEOUT = 100_000, 20.0
LONGEST = 4000  # characters of a typed prompt
COMPARED = 12  # runs beside each other, at most


class Dashboard:
    """The pages over an index; `explain` answers a request for an explanation, None where that is off."""

    def __init__(self, index: Index, token: str = "", explain: Callable[..., Any] | None = None) -> None:
        self.index, self.token, self.explainer, self.closing = index, token, explain, False
        self.templates = jinja2.Environment(
            autoescape=True,
            loader=jinja2.FileSystemLoader([FOLDER / "templates", FOLDER.parent / "reports"]),
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        self.templates.filters["unbroken"] = unbroken

    def application(self, hosts: Sequence[str] = ()) -> Application:
        """Return the application; `hosts` are the names that requests may be addressed to, none for any."""
        routes = [
            Route("/", self.first),
            Route("/run/{name:path}", self.run),
            Route("/curves/{name:path}", self.curves),
            Route("/completions/{name:path}", self.completions),
            Route("/explain/{name:path}", self.explain, methods=["GET"]),
            Route("/explain/{name:path}", self.explanation, methods=["POST"]),
            Route("/sweep/{name:path}", self.sweep),
            Route("/compare", self.compare),
            Route("/events", self.table_events),
            Route("/events/{name:path}", self.run_events),
            Route("/login", self.login, methods=["GET", "POST"]),
            Route("/static/{name}", self.static),
        ]
        app: Any = Starlette(routes=routes, exception_handlers={HTTPException: self.on_error, Exception: self.on_error})
        if self.token:
            app = TokenGate(app, self.token)
        return Guard(app, Metrics(), MAX_BODY, BODY_TIMEOUT, hosts)

    def render(self, template: str, code: int = 200, **values: Any) -> HTMLResponse:
        """Fill in a template; pages are never cached, since runs change."""
        text = self.templates.get_template(f"{template}.html").render(page=template, label=label, **values)
        return HTMLResponse(text, code, {"Cache-Control": "no-store"})

    def named(self, request: Request) -> Run:
        """Return the run of a request; raises an HTTP error where there is none."""
        run = self.index.get(request.path_params["name"])
        if run is None:
            raise HTTPException(404, "there is no such run; it may have been deleted")
        return run

    def first(self, request: Request) -> Response:
        """Return the table of runs."""
        every = self.index.runs()
        query = {name: request.query_params.get(name, "") for name in ("q", "method", "state", "model", "sweep")}
        runs = [run for run in every.values() if matches(run, query)]
        pages = max(1, -(-len(runs) // PAGE_SIZE))
        page = min(max(1, number(request, "page")), pages)
        columns = sorted(HEADLINES, key=lambda name: -sum(name in run.values for run in runs))[:COLUMNS]
        columns = [name for name in columns if any(name in run.values for run in runs)]
        found = compare.axes_of(runs) if runs else None
        shown = compare.points(runs, *found) if found else []
        choices = {
            field: sorted({getattr(run, field) for run in every.values()} - {""}) for field in query if field != "q"
        }
        return self.render(
            "runs",
            runs=runs[(page - 1) * PAGE_SIZE : page * PAGE_SIZE],
            matching=len(runs),
            total=len(every),
            columns=columns,
            query=query,
            choices=choices,
            number=page,
            pages=pages,
            front=compare.front(shown, *found) if found and len(shown) > 1 else "",
            best=[point for point in shown if point.best],
            axes=found,
            sweeps={name: len(runs) for name, runs in self.index.sweeps().items()},
        )

    def run(self, request: Request) -> Response:
        """Return the page of a run."""
        run = self.named(request)
        return self.render("run", run=run, explains=self.explainer is not None, **run_page.overview(run))

    def curves(self, request: Request) -> Response:
        """Return the curves of a run alone, which the script puts into its page."""
        return self.render("curves", charts=run_page.charts(self.named(request)))

    def completions(self, request: Request) -> Response:
        """Return a page of a run's completions."""
        run = self.named(request)
        stages = run_page.with_samples(run)
        query = {name: request.query_params.get(name, "") for name in ("stage", "q", "kind", "measure")}
        query["stage"] = query["stage"] if query["stage"] in stages else (stages[-1] if stages else "")
        rows = run_page.samples_of(run, query["stage"])
        shown = run_page.search(rows, query["q"], query["kind"], query["measure"], number(request, "page"))
        return self.render(
            "completions", run=run, stages=stages, query=query, shown=shown, explains=self.explainer is not None
        )

    def explain(self, request: Request) -> Response:
        """Return the page that asks for a prompt to explain."""
        run = self.named(request)
        if self.explainer is None:
            raise HTTPException(404, "explanations are off; start the dashboard with task.explain=true")
        prompt = request.query_params.get("prompt", "")[:LONGEST]
        return self.render("explain", run=run, explains=True, prompt=prompt)

    async def explanation(self, request: Request) -> Response:
        """Explain the prompt of a JSON body, as part of a page; the body's type keeps forms of other sites out."""
        run = await to_thread(self.named, request)
        if self.explainer is None:
            raise HTTPException(404, "explanations are off")
        prompt, completion = await typed_prompt(request)
        try:
            item = await to_thread(self.explainer, run, prompt, completion)
        except Explained as error:
            raise HTTPException(400, str(error)) from error
        return self.render("explanation_part", item=item, numbered=numbered)

    def sweep(self, request: Request) -> Response:
        """Return the page of a sweep."""
        name = request.path_params["name"]
        runs = self.index.sweeps().get(name)
        if runs is None:
            raise HTTPException(404, "there is no such sweep; it may have been deleted")
        found = compare.axes_of(runs)
        shown = compare.points(runs, *found) if found else []
        front = compare.front(shown, *found) if found and len(shown) > 1 else ""
        return self.render("sweep", name=name, runs=runs, front=front, **sweep_page.overview(runs))

    def compare(self, request: Request) -> Response:
        """Return runs side by side, and the answers that flipped between the first two."""
        names = dict.fromkeys(request.query_params.getlist("run"))
        runs = [run for run in map(self.index.get, names) if run][:COMPARED]
        if len(runs) < 2:
            raise HTTPException(400, "choose at least two runs that exist")
        first, second = map(compare.last_samples, runs[:2])
        measures = compare.measures_of(first, second)
        wanted = request.query_params.get("measure", "")
        likely = [name for name in HEADLINES if name in measures] or measures
        measure = wanted if wanted in measures else (likely[0] if likely else "")
        found = compare.axes_of(runs)
        shown = compare.points(runs, *found) if found else []
        better = compare.better_of(runs[:2], measure)
        flips = compare.flips(first, second, measure, better) if measure else []
        pages = max(1, -(-len(flips) // compare.PAGE_SIZE))
        page = min(max(1, number(request, "page")), pages)
        return self.render(
            "compare",
            runs=runs,
            table=compare.columns(runs),
            front=compare.front(shown, *found, runs) if found and len(shown) > 1 else "",
            measures=measures,
            measure=measure,
            counts={
                verdict: sum(flip.verdict == verdict for flip in flips) for verdict in ("worse", "better", "changed")
            },
            flips=flips[(page - 1) * compare.PAGE_SIZE : page * compare.PAGE_SIZE],
            total=len(flips),
            number=page,
            pages=pages,
            query=[*(("run", run.name) for run in runs), ("measure", measure)],
        )

    def table_events(self, _: Request) -> Response:
        """Return the stream that says when the table of runs changes."""
        return events(follow.table_events(self.index, lambda: self.closing))

    def run_events(self, request: Request) -> Response:
        """Return the stream of a run's new steps."""
        run = self.named(request)
        return events(follow.run_events(self.index, run.name, run.folder, lambda: self.closing))

    async def login(self, request: Request) -> Response:
        """Ask for the token, and keep a right one."""
        if request.method == "POST" and self.token and (response := await sign_in(request, self.token)):
            return response
        wrong = "this is not the token" if request.method == "POST" else ""
        return self.render("login", 401 if wrong else 200, error=wrong)

    def static(self, request: Request) -> Response:
        """Return the script or a style sheet."""
        path = STATIC.get(request.path_params["name"])
        if path is None:
            raise HTTPException(404, "there is no such file")
        return FileResponse(path, headers={"Cache-Control": "no-cache"})

    async def on_error(self, request: Request, error: Exception) -> Response:
        """Return the page of an error; that of a fault of the server says no more, its text is in the log."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        what = str(error.detail) if isinstance(error, HTTPException) else "the page could not be made; see the log"
        return self.render("error", status, status=status, what=what)


async def typed_prompt(request: Request) -> tuple[str, str | None]:
    """Return the prompt and the completion of a JSON body; raises an HTTP error where there is no prompt."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "send JSON")
    try:
        body = await request.json()
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "the body is not JSON") from error
    prompt, completion = (body.get(name) if isinstance(body, dict) else None for name in ("prompt", "completion"))
    if not isinstance(prompt, str) or not prompt.strip() or len(prompt) > LONGEST:
        raise HTTPException(400, f"give a prompt of 1 to {LONGEST:,} characters")
    return prompt, completion if isinstance(completion, str) and completion.strip() else None


def events(source: Any) -> Response:
    """Return a stream of server-sent events."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(follow.stream(source), media_type="text/event-stream", headers=headers)


def matches(run: Run, query: dict[str, str]) -> bool:
    """Return whether a run is among those that a filter asks for."""
    text = " ".join([run.name, run.method, run.model, run.dataset, run.seed, run.state]).lower()
    wanted = all(query[name] in ("", getattr(run, name)) for name in ("method", "state", "model", "sweep"))
    return wanted and all(word in text for word in query["q"].lower().split())


def number(request: Request, name: str) -> int:
    """Return a number of the query; 1 where it is none."""
    text = request.query_params.get(name, "1")
    return int(text) if text.isdecimal() and len(text) < 9 else 1
