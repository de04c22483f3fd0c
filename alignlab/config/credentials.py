"""Refuse settings that hold a password or a key, and keep both out of messages.

Settings are written into a run's folder and sent to trackers. So a setting names the environment variable of a secret,
and never holds the secret itself.
"""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from alignlab.errors import Fault

USER = re.compile(r"(?<=://)[^\s/?#@\"']*@")  # of an address; a database may name a user, but no password
PASSWORD = re.compile(r"(?<=://)[^\s/?#@\"':]*:[^\s@\"']*@")  # also one that holds / or ?
FIELD = re.compile(r"(?<=[?&;#])([^\s=&;#\"'?]+)=([^\s&;#\"']+)")
ADDRESS = re.compile(r"\b[a-zA-Z][\w+.-]*://[^\s\"']+")
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")
SECRET_WORDS = {
    *("token", "key", "apikey", "secret", "password", "passwd", "pass", "pwd", "auth", "authorization", "signature"),
    *("sig", "credential", "credentials", "session", "jwt", "bearer"),
}
TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[\w-]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|xox[abp]-[\w-]{10,}"
    r"|AKIA[A-Z0-9]{16}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
)
SCHEME = re.compile(r"\b(Basic|Bearer) [\w.~+/=-]{8,}", re.IGNORECASE)  # of the header Authorization
SHORTEST = 8  # letters of a variable's value that is searched for in messages
VARIABLE = re.compile(r"\$\{\s*oc\.env\s*:\s*([^,}]*)")
# Variables whose value may be written: folders, and what a scheduler says of a job.
OPEN_VARIABLE = re.compile(r"(ALIGNLAB|SLURM)_\w+|(\w+_)?(DIR|PATH|HOME|FOLDER|ROOT|DATA|CACHE|SCRATCH|TMPDIR|USER)")
INSTEAD = {
    "mlflow_uri": "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    "storage": "leave it out, and set PGPASSWORD (PostgreSQL)",
    "store": "leave it out, and set PGPASSWORD (PostgreSQL)",
    "url": "put it into an environment variable and name that in key_env",
}
ANYWHERE = (
    "leave it out: settings are written into the run's folder; keys are read from HF_TOKEN, WANDB_API_KEY, key_env"
)


def faults(tree: Any, place: str = "") -> Iterator[Fault]:
    """Yield a fault for each setting of a composed tree that holds a password, a key or a token."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from faults(str(name), place)  # an entry's name may be the user's own
            yield from faults(value, f"{place}.{name}" if place else str(name))
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from faults(value, place)
    elif isinstance(tree, str) and (what := secret_in(tree)):
        yield Fault(place, f"holds {what}", INSTEAD.get(place.rpartition(".")[2], ANYWHERE))


def secret_in(text: str) -> str:
    """Return which kind of secret a text holds, in words; empty for none."""
    if redacted(text) == text:
        return ""
    if TOKEN.search(text):
        return "a token"
    return "a password" if USER.search(text) or PASSWORD.search(text) else "a key in its query"


def redacted(text: str) -> str:
    """Return a text with every password, key and token in it replaced by asterisks."""
    return TOKEN.sub("***", ADDRESS.sub(lambda found: without_secrets(found[0]), text))


def without_keys(text: str) -> str:
    """Return what a server or a library says without keys: a server may repeat the one that was sent to it.

    Also replace the values of variables that have a secret's name, and what follows Basic or Bearer.
    """
    values = {value for name, value in os.environ.items() if is_secret(name) and len(value) >= SHORTEST}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "***")
    return SCHEME.sub(r"\1 ***", redacted(text))


def without_secrets(address: str) -> str:
    """Return an address without its password, the secret fields of its query, and the user of a web address."""
    web = address.lower().startswith(("http", "ws"))
    address = (USER if web else PASSWORD).sub("***@", address)
    return FIELD.sub(lambda found: f"{found[1]}=***" if is_secret(found[1]) else found[0], address)


def is_secret(name: str) -> bool:
    """Return whether the name of a field says that it holds a secret: `api_key`, `accessToken`, `X-Amz-Signature`."""
    words = {word.lower() for word in WORD.findall(unquote(name))}
    return bool(words & SECRET_WORDS) or unquote(name).lower().endswith(("token", "key", "secret", "password"))


def variable_faults(tree: Any, place: str = "") -> Iterator[Fault]:
    """Yield a fault for each setting of an unresolved tree that takes its value from a variable that may be secret."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from variable_faults(value, f"{place}.{name}" if place else str(name))
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from variable_faults(value, place)
    elif isinstance(tree, str):
        for variable in VARIABLE.findall(tree):
            if not OPEN_VARIABLE.fullmatch(variable.strip().strip("'\"")):
                what = (
                    f"takes its value from the variable {variable.strip()}, and would be written into the run's folder"
                )
                yield Fault(place, what, SET_IT)


SET_IT = "give the value itself; where it is a key, name the variable in key_env, or use HF_TOKEN or WANDB_API_KEY"
