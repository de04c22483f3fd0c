"""Read a JSON array, or JSON objects one after the other, without holding the whole file in memory."""

import codecs
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from alignlab.data.jsonl import (
    Record,
    RepeatedField,
    explain_read_errors,
    fields_in,
    open_bytes,
    read_failure,
    unique_fields,
)
from alignlab.data.rejects import Reject

CHUNK_BYTES = 1 << 16
LARGEST_ROW = 1 << 24  # characters
BLANKS = " \t\r\n"
LONGEST_TOKEN = 12  # characters; a syntax error this close to the end of the text may be a truncated token


def read_json_array(path: Path) -> Iterator[Record | Reject]:
    """Yield the elements of a JSON array; `line` is the line on which an element begins."""
    decode = json.JSONDecoder(object_pairs_hook=unique_fields).raw_decode
    text = TextWindow(path)
    text.skip(BLANKS + "\ufeff")
    text.advance(1)  # the opening bracket
    while True:
        text.skip(BLANKS)
        if text.starts_with("]"):
            return _check_end(text)
        if text.at_end():
            raise read_failure(path, text.line, "the array ends too early", "fetch it again")
        value, length = text.decode(decode)
        line = text.line
        text.advance(length)
        text.skip(BLANKS)
        if text.starts_with(","):
            text.advance(1)
        elif not text.starts_with("]"):
            raise read_failure(path, text.line, "the file is not JSON here (no comma after a row)", "fix it")
        if (fields := fields_in(value)) is not None:
            yield Record(path, line, fields)
        else:
            yield Reject(path, line, "", "the element is not a JSON object", "an array of JSON objects")


def read_json_objects(path: Path) -> Iterator[Record | Reject]:
    """Yield the objects of a file that writes them one after the other over many lines."""
    decode = json.JSONDecoder(object_pairs_hook=unique_fields).raw_decode
    text = TextWindow(path)
    text.skip(BLANKS + "\ufeff")
    while not text.at_end():
        value, length = text.decode(decode)
        line = text.line
        text.advance(length)
        text.skip(BLANKS)
        if (fields := fields_in(value)) is not None:
            yield Record(path, line, fields)
        else:
            yield Reject(path, line, "", "the value is not a JSON object", "JSON objects")


def _check_end(text: "TextWindow") -> None:
    text.advance(1)  # the closing bracket
    text.skip(BLANKS)
    if not text.at_end():
        raise read_failure(text.path, text.line, "something follows the end of the array", "remove it")


class TextWindow:
    """A window that moves forward over the text of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.chunks = _decoded_chunks(path)
        self.text = ""
        self.position = 0
        self.line = 1

    def read_more(self, least: int = CHUNK_BYTES) -> bool:
        """Append at least `least` characters; return False at the end of the file."""
        rest = self.text[self.position :]
        chunks: list[str] = []
        while sum(len(chunk) for chunk in chunks) < least and (chunk := next(self.chunks, "")):
            chunks.append(chunk)
        self.text, self.position = rest + "".join(chunks), 0
        return bool(chunks)

    def at_end(self) -> bool:
        """Return whether no text is left."""
        while self.position >= len(self.text):
            if not self.read_more():
                return True
        return False

    def starts_with(self, character: str) -> bool:
        """Return whether the rest of the text starts with a character."""
        return not self.at_end() and self.text[self.position] == character

    def advance(self, count: int) -> None:
        """Move forward by `count` characters and count the lines."""
        self.line += self.text.count("\n", self.position, self.position + count)
        self.position += count

    def skip(self, blanks: str) -> None:
        """Move forward over blanks."""
        while not self.at_end() and self.text[self.position] in blanks:
            self.advance(1)

    def decode(self, decode: Callable[[str, int], tuple[Any, int]]) -> tuple[Any, int]:
        """Return the JSON value at the position, and its length in characters."""
        while True:
            try:
                value, end = decode(self.text, self.position)
                if end < len(self.text) or not self.read_more():
                    return value, end - self.position
            except json.JSONDecodeError as error:
                self._read_truncated_value(error)
            except RepeatedField as error:
                what = f"the field {str(error)!r} stands twice in one object"
                raise read_failure(self.path, self.line, what, "remove one") from error
            except (RecursionError, ValueError) as error:
                raise read_failure(self.path, self.line, "a row cannot be decoded", "fix the file") from error

    def _read_truncated_value(self, error: json.JSONDecodeError) -> None:
        """Double the text if the value may be truncated; raise a failure otherwise."""
        length = len(self.text) - self.position
        if length > LARGEST_ROW:
            raise read_failure(self.path, self.line, "a row does not end", "fix the file") from error
        truncated = error.msg.startswith("Unterminated") or error.pos >= len(self.text) - LONGEST_TOKEN
        if not truncated or not self.read_more(length):
            line = self.line + self.text.count("\n", self.position, error.pos)
            raise read_failure(self.path, line, f"the file is not JSON here ({error.msg})", "fix it") from error


def _decoded_chunks(path: Path) -> Iterator[str]:
    """Yield the text of a file in chunks, whatever the length of its lines."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    for chunk in _byte_chunks(path):
        try:
            text = decoder.decode(chunk)
        except UnicodeDecodeError as error:
            line += chunk.count(b"\n", 0, max(0, error.start))
            raise read_failure(path, line, "the file is not UTF-8", "save it as UTF-8") from error
        line += text.count("\n")
        if text:
            yield text


def _byte_chunks(path: Path) -> Iterator[bytes]:
    with explain_read_errors(path), open_bytes(path) as stream:
        yield from iter(lambda: stream.read(CHUNK_BYTES), b"")
