"""Hash what decides a reward's scores besides its models: settings, the files of user functions, and code."""

from typing import Any

from alignlab.config import extensions
from alignlab.config.reward import RewardSettings, every
from alignlab.runtime.files import digest_files
from alignlab.runtime.source_hash import hash_with_imports

NOT_IN_HASH = {
    "timeout",
    "retries",
    "backoff",
    "batch_size",
    "key_env",
    "longest_wait",
    "concurrency",
}  # settings of requests, which change no score


def reward_hash(settings: RewardSettings) -> Any:
    """Return the settings and the hashes of the code that decide a reward's scores; its models are hashed elsewhere."""
    rewards = [one for _, one in every(settings)]
    users = [digest_files(one.sources()) for one in rewards if one.sources()]
    kinds = {one.kind: hash_with_imports(extensions.name_of("rewards", one.kind)) for one in rewards}
    return [without(settings.model_dump(mode="json")), users, kinds]


def without(settings: Any) -> Any:
    """Return settings without those that change no score, at any depth."""
    if not isinstance(settings, dict):
        return settings
    return {key: without(value) for key, value in settings.items() if key not in NOT_IN_HASH}
