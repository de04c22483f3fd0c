"""Fill in the HTML templates of this folder; text that comes from data or from a model is escaped."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from markupsafe import Markup

FOLDER = Path(__file__).parent
# Allows a page its own styles and pictures: no requests, no forms, and no script but the one with this hash.
CONTENT_POLICY = Markup(
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
    "img-src data:; {}base-uri 'none'; form-action 'none'\">"
)


def render(name: str, script_name: str | None = None, **values: Any) -> str:
    """Fill in a template that extends `page.html`; raise an error where it uses a value that is not given.

    `script_name` is the script of the page, a file of this folder.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader(FOLDER),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["unbroken"] = unbroken
    script = (FOLDER / script_name).read_text(encoding="utf-8") if script_name else ""
    allowed = Markup("script-src 'sha256-{}'; ").format(sha256(script)) if script else ""
    return environment.get_template(name).render(script=script, content_policy=CONTENT_POLICY.format(allowed), **values)


def unbroken(text: str) -> str:
    """Return a sentence in which no line ends within "n = 20"."""
    return text.replace("n = ", "n\u00a0=\u00a0")


def sha256(script: str) -> str:
    """Return the hash by which a content security policy allows a script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
