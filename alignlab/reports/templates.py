"""Fill in the HTML templates of this folder; text that comes from data or from a model is escaped."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

# Allows a page its own styles and pictures: no scripts, no requests, no forms.
CONTENT_POLICY = Markup(
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'\">"
)


def render(name: str, **values: Any) -> str:
    """Fill in a template; raise an error where it uses a value that is not given."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name).render(**values)
