"""Print the lowest version of every dependency that pyproject.toml allows, as constraints for pip."""

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def lowest_versions() -> dict[str, str]:
    """Return the lower bound of each requirement of alignlab and its extras, by name."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    requirements = [
        *project["dependencies"],
        *(line for name in ("deepspeed", "launchers", "mlflow", "serve") for line in extras[name]),
    ]
    return dict(re.fullmatch(r"([\w-]+)[>=]=([\w.]+)(?:,<[\w.]+)?", line).groups() for line in requirements)


if __name__ == "__main__":
    print("\n".join(f"{name}=={version}" for name, version in lowest_versions().items()))
