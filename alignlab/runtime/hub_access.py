"""Whether the Hugging Face hub answers: its own client would try for minutes."""

from typing import NoReturn

from alignlab.errors import failure

PATIENCE = 3.0  # seconds in which a hub has to answer


def reach(where: str, path: str, otherwise: str) -> None:
    """Raise a failure within seconds where the hub does not answer; `otherwise` are the settings that need none."""
    from huggingface_hub import constants, get_session

    def unreachable(why: str, error: Exception | None = None) -> NoReturn:
        raise failure(
            where,
            f"{path} is not in the cache, and the hub cannot be reached ({why})",
            f"connect to it, set HF_ENDPOINT to a mirror, or give a folder: {otherwise}",
        ) from error

    if constants.HF_HUB_OFFLINE:
        unreachable("HF_HUB_OFFLINE is set")
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception as error:  # every client library has its own kinds
        unreachable(f"{constants.ENDPOINT}: {type(error).__name__}", error)
