"""The base class of all settings (frozen, typed, without unknown keys), and the types of numbers and lists in them."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from alignlab.config import extensions
from alignlab.errors import Fault

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """A frozen group of settings: no unknown keys, no silent conversion (`true` is no number)."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=(), defer_build=True
    )

    def faults(self) -> Iterator[Fault]:
        """Yield a fault for settings that contradict each other, with places relative to this group."""
        yield from ()


Seed = Annotated[int, Field(ge=0, lt=2**32)]

Names = Annotated[tuple[str, ...], Field(strict=False)]


def check_regex(pattern: str) -> str:
    """Return a regular expression; raise a pydantic error where it does not compile."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise PydanticCustomError("regex", "{reason}; write a regular expression", {"reason": str(error)}) from None
    return pattern


Regex = Annotated[str, AfterValidator(check_regex)]


def path_in_home(path: Path) -> Path:
    """Return a path with `~` replaced by the home folder."""
    try:
        return path.expanduser()
    except RuntimeError:  # a name that begins with ~ and is no user
        return path


def not_empty(value: Any) -> Any:
    """Return a value; raise pydantic's error of a missing value for an empty text, which would mean this folder."""
    if isinstance(value, str) and not value.strip():
        raise PydanticCustomError("missing", "no value was given")
    return value


File = Annotated[Path, Field(strict=False), BeforeValidator(not_empty), AfterValidator(path_in_home)]

Reference = Annotated[str, BeforeValidator(not_empty)]  # `auto`, the folder of a model, or its id on the hub

Files = Annotated[
    tuple[File, ...],
    BeforeValidator(lambda value: [not_empty(value)] if isinstance(value, str) else value),
    Field(strict=False, min_length=1),
]


# By pydantic's name of an error: the type that a value must have.
RULES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a group of settings",
    "model_type": "a group of settings",
    "model_attributes_type": "a group of settings",
    "path_type": "a path",
    "finite_number": "a finite number",
}

EXTENSION = "extension"  # the tag of the union member for kinds that users add


def by_kind(*kinds: str) -> Discriminator:
    """Return the discriminator of a union by `kind`: settings of a kind that is not built in are a user's own."""

    def tag_of(value: Any) -> str | None:
        if isinstance(value, Mapping):
            return value.get("kind")
        kind = getattr(value, "kind", None)
        return kind if kind in kinds else EXTENSION

    return Discriminator(tag_of)


class OptionName(NamedTuple):
    """Annotate a text that names an option: one of the built-in names, or a user's own module of a kind."""

    kind: str
    built_in: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def check(self, name: str) -> str:
        """Return the name of a known option; raise pydantic's error of a wrong literal for any other."""
        if name in self.built_in or extensions.module_name(self.kind, name):
            return name
        *names, last = map(repr, self.built_in)
        expected = {"expected": f"{', '.join(names)} or {last}"}
        raise PydanticCustomError("literal_error", "Input should be {expected}", expected)
