"""Views of rows: the columns that a method needs. A view is one file, `views/<name>.py`, found by its name.

A data set holds prepared rows: a prompt and its completions, best first, with the columns of
`alignlab.data.prepared_columns.prepared_features`. A view's file declares how it is built from them:

- `FORMS`: the forms of prepared rows that give it (`alignlab.data.row_chunks.row_form`)
- `COMPLETIONS`: its columns that hold one completion each
- `of_rows(rows, dataset)`: build it from prepared rows and the settings of the data set
- `of_pairs(rows, dataset)`, optional: build it from rows of `prompt`, `chosen`, `rejected` and `id`
"""

from collections.abc import Mapping
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Protocol

from alignlab.config import extensions
from alignlab.config.dataset import DataSettings

if TYPE_CHECKING:
    from datasets import Dataset


class View(Protocol):
    """The names that the file of a view declares."""

    FORMS: tuple[str, ...]
    COMPLETIONS: tuple[str, ...]

    def of_rows(self, rows: "Dataset", dataset: DataSettings) -> "Dataset":
        """Build the view from prepared rows."""


def load_view(name: str) -> View:
    """Import the file of a view; raise a mistake if there is none."""
    module: Any = extensions.load("views", name)
    return module


def view_names() -> list[str]:
    """List the built-in views."""
    return sorted(module.name for module in iter_modules(__path__))


def gives(forms: Mapping[str, int], name: str) -> bool:
    """Return whether rows of these forms (counts by form) can give a view."""
    return any(forms.get(form) for form in load_view(name).FORMS)
