"""Fill in the HTML templates of this folder; text that comes from data or from a model is escaped."""

from pathlib import Path
from typing import Any


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
