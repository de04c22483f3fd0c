"""`python -m alignlab`."""

import gc
import os

gc.disable()  # until a run begins: a mistake is answered before there is anything to collect
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for them reads every installed package

from alignlab.main import main  # noqa: E402

if __name__ == "__main__":
    main()
