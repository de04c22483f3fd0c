"""Run `python -m alignlab`."""

import gc
import os

gc.disable()  # until a run begins, so that a mistake is reported sooner
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # the search for plugins reads every installed package

from alignlab.runtime.signals import exit_on_signals  # noqa: E402

if __name__ == "__main__":
    exit_on_signals()  # the imports below take a second

from alignlab.main import main  # noqa: E402

if __name__ == "__main__":
    main()
