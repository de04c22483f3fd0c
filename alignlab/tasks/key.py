"""Create or revoke API keys of the server: `task=key task.user=alice task.role=label`.

The key is printed once. The store holds its hash only.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from alignlab.config.schema import Config
from alignlab.config.task import Key
from alignlab.runtime.progress import say

COMPUTES = False


def plan(config: Config) -> Iterator[str]:
    """Yield the line of `dry_run=true`."""
    settings = config.task
    assert isinstance(settings, Key)
    yield f"{'revoke the keys' if settings.revoke else f'create a key to {settings.role}'} of {settings.user}"


def run(config: Config, folder: Path) -> None:
    """Create a key and print it, or revoke all keys of the user."""
    from alignlab.serving.requirements import check_installed

    settings = config.task
    assert isinstance(settings, Key)
    check_installed()
    from alignlab.serving.keys import create_key, revoke_keys
    from alignlab.serving.store.database import connect

    engine = connect(settings.database)
    with engine.begin() as connection:
        if settings.revoke:
            say(f"revoked: {revoke_keys(connection, settings.user)}")
        else:
            key = os.environ[settings.key_env] if settings.key_env else None
            created = create_key(connection, settings.user, settings.role, key)
            print(f"the key of {settings.key_env} is known" if key else created)
    engine.dispose()
    with suppress(OSError):
        folder.rmdir()
