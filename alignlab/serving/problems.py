"""Errors that a client sees: a status, a word for programs and a sentence for people, in the form of OpenAI's API."""

from collections.abc import Mapping


class Problem(Exception):
    """An error of a request; the server answers with its status."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers or {})


def missing(what: str) -> Problem:
    """Build the problem of an id that is not there, or that belongs to somebody else."""
    return Problem(404, "not_found", f"{what} is not there")


def busy(message: str, seconds: int = 1) -> Problem:
    """Build the problem of a limit that is reached, with the seconds after which a retry makes sense."""
    return Problem(429, "rate_limited", message, {"Retry-After": str(seconds)})
