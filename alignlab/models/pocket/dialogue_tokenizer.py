"""The tokenizer of pocket's dialogues: every word of theirs is one token, any other text is spelled in letters."""

import re
from typing import TYPE_CHECKING

from alignlab.data.row_formats import SUMMARISE
from alignlab.pocket.dialogues import FIRST, SECOND, every_phrasing

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
LONGEST = 512
_SLOT = re.compile(r"\{\w+\}")
_WORD = re.compile(r"[A-Za-z]+|[^\w\s]")


def make_tokenizer(begin: str | None = None) -> "PreTrainedTokenizerFast":
    """Build the tokenizer; with `begin`, a text gets that token before it and the end token after it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = [PAD, END, UNKNOWN, *([begin] if begin else [])]
    known = words()
    letters = [f"{space}{chr(code)}" for code in range(33, 127) for space in ("", "▁")]
    costs = [(word, -1.0) for word in known] + [(letter, -20.0) for letter in ("▁", *letters) if letter not in known]
    core = Tokenizer(models.Unigram([*((name, 0.0) for name in special), *costs], special.index(UNKNOWN), False))
    core.normalizer = normalizers.Replace("\n", " ")
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    core.decoder = decoders.Metaspace(prepend_scheme="always")
    core.add_special_tokens(special)
    if begin:
        ends = [(begin, special.index(begin)), (END, special.index(END))]
        core.post_processor = processors.TemplateProcessing(f"{begin} $A {END}", f"{begin} $A {END} $B {END}", ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, bos_token=begin, cls_token=begin,
        model_max_length=LONGEST, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def words() -> list[str]:
    """Return the words of dialogues with the space before them, the speakers, and punctuation without a space."""
    texts = [_SLOT.sub("", text) for text in (*every_phrasing(), SUMMARISE)]
    found = {word for text in texts for word in _WORD.findall(text)}
    return sorted({f"▁{word}" if word.isalpha() else word for word in found} | {f"▁{FIRST}", f"▁{SECOND}"})
