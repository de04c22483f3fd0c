"""Check that the Hugging Face hub answers, within seconds; its own client retries for minutes."""

from typing import NoReturn

from alignlab.errors import Explained, failure

TIMEOUT = 3.0  # seconds


def require_hub(where: str, path: str, offline: str) -> None:
    """Raise a `Failure` where the hub does not answer; `offline` names the settings that work without it."""
    from huggingface_hub import constants, get_session

    def unreachable(why: str, error: Exception | None = None) -> NoReturn:
        raise failure(
            where,
            f"{path} is not in the cache, and the hub cannot be reached ({why})",
            f"connect to it, set HF_ENDPOINT to a mirror, or give a folder: {offline}",
        ) from error

    if constants.HF_HUB_OFFLINE:
        unreachable("HF_HUB_OFFLINE is set")
    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT)
    except (Explained, MemoryError):
        raise
    except Exception as error:  # each HTTP client raises classes of its own
        unreachable(f"{constants.ENDPOINT}: {type(error).__name__}", error)
