"""Sphinx's settings for the documentation; `make docs` builds it into build/site."""

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from docstrings import as_rst  # noqa: E402
from settings_pages import write_pages  # noqa: E402
from sphinx.util.logging import getLogger  # noqa: E402

LOG = getLogger(__name__)

import alignlab  # noqa: E402

project = "alignlab"
release = alignlab.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]

myst_enable_extensions = ["attrs_block", "colon_fence"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "fully-qualified"
toc_object_entries_show_parents = "hide"
default_role = "code"
python_use_unqualified_type_names = True
copybutton_prompt_text = "$ "

html_theme = "furo"
html_title = "alignlab"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_copy_source = False

# Pages link to files of the repository, as a reader of the repository needs; on the site these are pages, too.
MOVED = {"(../benchmarks/RESULTS.md": "(results.md", "(../CHANGELOG.md": "(changelog.md"}
MOVED |= {"(../CONTRIBUTING.md": "(contributing.md", "(../SECURITY.md": "(security.md"}
DRAWING = ":::{container} drawing\n```{raw} html\n:file: packages.svg\n```\n:::"
# A drawing that is part of the page takes the page's colours, light or dark.
MOVED |= {"![The packages of alignlab in layers](packages.svg)": DRAWING}


def link_inside(app: Any, page: str, source: list[str]) -> None:
    """Let links to the repository's own pages lead to their copies on the site."""
    for before, after in MOVED.items():
        source[0] = source[0].replace(before, after)


def stays_here(app: Any, error: Exception | None) -> None:
    """Warn of pages that load fonts, scripts or styles from elsewhere: the site works without a network."""
    loads = re.compile(r"""<(?:script|img|iframe)[^>]+src=["']?(?:https?:)?//|<link[^>]+href=["']?(?:https?:)?//""")
    imports = re.compile(r"""@import[^;]*//|url\(["']?(?:https?:)?//""")
    for file in () if error else Path(app.outdir).rglob("*.*"):
        pattern = {".html": loads, ".css": imports}.get(file.suffix)
        if pattern and (found := pattern.search(file.read_text(encoding="utf-8"))):
            LOG.warning("%s loads something from the network: %s", file.name, found[0])


def rewrite_docstring(app: Any, kind: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Let Sphinx read docstrings as alignlab writes them."""
    lines[:] = as_rst(lines)


def setup(app: Any) -> None:
    """Write the pages that are generated, before the others are read."""
    app.connect("source-read", link_inside)
    app.connect("autodoc-process-docstring", rewrite_docstring)
    app.connect("build-finished", stays_here)
    app.connect("builder-inited", lambda app: write_pages(Path(app.srcdir) / "settings"))
