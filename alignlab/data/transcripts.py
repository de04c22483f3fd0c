"""Conversations inside a text: `Human: … Assistant: …`, `### Human: …`, `USER: …`, and ChatML."""

import re

from alignlab.chat import Turn
from alignlab.data.turns import ROLES

CHATML = re.compile(r"<\|im_start\|>\s*(\w+)\s*\n(.*?)(?:<\|im_end\|>|\Z)", re.DOTALL)
MARKERS = re.compile(
    r"\[INST\]|<\|(?:start_header_id|user|assistant|im_start|im_end)\|>|<start_of_turn>|<\|?(?:User|Assistant)\|?>"
    r"|^### (?:Instruction|Response|Human|Assistant):",
    re.MULTILINE,
)
WITH_MARKERS = "text that holds the markers of a chat template, read as plain text"
TRANSCRIPTS = (  # how a transcript begins, and how it is split into speakers and texts
    (re.compile(r"\A\s*###\s*Human:"), re.compile(r"\s*###\s*(Human|Assistant):")),
    (re.compile(r"\A\s*Human:"), re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")),
    (
        re.compile(r"\A\s*(?:BEGINNING OF CONVERSATION:\s*)?USER:"),
        re.compile(r"(?:\A|\s|</s>)\s*(USER|ASSISTANT):|</s>\s*\Z"),
    ),
    (re.compile(r"\A\s*User:"), re.compile(r"(?:\A|\n)\s*(User|Assistant):")),
)

OPENINGS = re.compile("|".join(["<\\|im_start\\|>", *(first.pattern for first, _ in TRANSCRIPTS)]))


def transcript_turns(text: str) -> list[Turn] | None:
    """Split text that begins as a transcript (`Human: … Assistant: …`, ChatML) into turns; None if it is none."""
    if not OPENINGS.match(text.lstrip()):
        return None
    if text.lstrip().startswith("<|im_start|>"):
        pieces = [(speaker.lower(), content) for speaker, content in CHATML.findall(text)]
    else:
        split = next((split for first, split in TRANSCRIPTS if first.match(text)), None)
        parts = split.split(text)[1:] if split else []
        pieces = [(speaker.lower(), text) for speaker, text in zip(parts[::2], parts[1::2], strict=True) if speaker]
    if any(speaker not in ROLES for speaker, _ in pieces):
        return None
    turns: list[Turn] = [{"role": ROLES[speaker], "content": content.strip()} for speaker, content in pieces]
    return turns if any(turn["role"] == "assistant" for turn in turns) else None


def holds_markers(text: str) -> bool:
    """Return whether a text holds the markers of a chat template."""
    may_hold = "<" in text or "### " in text or "[INST]" in text  # quicker than a search, or than any() of a generator
    return may_hold and MARKERS.search(text) is not None
