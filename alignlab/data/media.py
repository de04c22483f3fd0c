"""Recognise images, sounds and films in rows: by the names of fields and files, and by placeholders in texts."""

import re
from functools import lru_cache
from typing import Any

NOUNS = {
    "images": "image|img|picture|photo|screenshot|pixel_value",
    "audios": "audio|speech|wav",
    "videos": "video|video_frame",
}
OWNERS = "chosen|rejected|input|prompt|question|query|user"
ENCODINGS = "path|url|uri|file|file_?path|file_?name|base64|b64|bytes|data"
FILES = {
    "images": re.compile(r"\S+\.(?:png|jpe?g|webp|gif|bmp|tiff?)", re.IGNORECASE),
    "audios": re.compile(r"\S+\.(?:wav|mp3|flac|ogg|m4a)", re.IGNORECASE),
    "videos": re.compile(r"\S+\.(?:mp4|avi|webm|mov|mkv)", re.IGNORECASE),
}
PLACEHOLDER = re.compile(
    r"<(image|audio|video|speech)>(?!(?s:.{0,4000}?)</\1>)|<img>[^<\n]{0,500}</img>|<(?:image|audio|video)[_ ]?\d+>"
    r"|<audio>[^<\n]{0,500}</audio>|<\|(?:image|audio|video|vision)(?:_\w{1,20})?\|>|<(?:Image|Audio|Video)Here>"
    r"|<(?:image|audio|video|speech)_(?:placeholder|pad|soft_token|token|start|end)>|<(?:start|end)_of_image>"
    r"|\[IMG\](?!(?s:.{0,4000}?)\[/IMG\])|\[(?:IMAGE|AUDIO|VIDEO)\]|data:(?:image|audio|video)/[\w.+-]{1,30};base64,\S*",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def media_kind(name: str) -> str:
    """Return `images`, `audios` or `videos` for the canonical name of a field that holds such; else an empty text."""
    return next(
        (
            kind
            for kind, nouns in NOUNS.items()
            if re.fullmatch(rf"(?:(?:{OWNERS})_)?(?:{nouns})s?(?:_(?:{ENCODINGS})s?)?", name)
        ),
        "",
    )


def media_files(value: Any) -> str:
    """Return the kind of the files that a value names, a text or a list of texts; else an empty text."""
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) for name in names):
        return ""
    return next((kind for kind, file in FILES.items() if all(file.fullmatch(name.strip()) for name in names)), "")


def find_placeholder(text: str) -> re.Match[str] | None:
    """Return the first place of an image, a sound or a film in a text."""
    may_hold = "<" in text or "[" in text or ";base64," in text  # one of them stands in every placeholder
    return PLACEHOLDER.search(text) if may_hold else None
