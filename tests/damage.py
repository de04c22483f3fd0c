"""Ways to damage a file that lies on a disk."""

from collections.abc import Callable
from pathlib import Path


def flip(file: Path) -> None:
    """Flip one bit in the middle; the size stays."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def cut(file: Path) -> None:
    """Cut the second half off."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def zero(file: Path) -> None:
    """Overwrite the content with zeros, as a crash before the data's flush does."""
    file.write_bytes(bytes(file.stat().st_size))


DAMAGES: dict[str, Callable[[Path], None]] = {"flip": flip, "cut": cut, "zero": zero, "delete": Path.unlink}
