"""Make a tokenizer ready: its chat template, the token that ends a turn, and padding with another token."""

from pathlib import Path
from typing import TYPE_CHECKING

from alignlab.config.model import PretrainedModel
from alignlab.errors import Failure, failure
from alignlab.models import own_code
from alignlab.models.chat_templates import FAMILIES
from alignlab.models.model_folder import explained_loading
from alignlab.models.template_repair import CHOOSE, make_special, repair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "spiece.model")
PADS = ("<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "[PAD]")  # padding tokens that models may have already
SPARE = ("<|endoftext|>", "<|end_of_text|>")  # ends of texts, which pad where no text of the model ends with them


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder holds files of a tokenizer."""
    return any((folder / name).exists() for name in TOKENIZERS)


def load_tokenizer(model: PretrainedModel, source: Path) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a model as it was published."""
    from transformers import AutoTokenizer

    if model.trust_remote_code:
        own_code.check_is_local(source)
    with explained_loading("model.path", f"{model.path} cannot be read", source):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source, trust_remote_code=model.trust_remote_code
        )
    return tokenizer


def prepare_tokenizer(tokenizer: "PreTrainedTokenizerBase", model: PretrainedModel) -> list[str]:
    """Set the chat template, the end-of-turn token, and a padding token that is not that one.

    Return a sentence for each repair of the template. Raises a `Failure` where a template cannot be repaired.
    """
    former = tokenizer.eos_token
    if family := FAMILIES.get(model.chat_template or ""):
        tokenizer.chat_template = family.template
        make_special(tokenizer, family.tokens)
        tokenizer.eos_token = family.end or tokenizer.eos_token
    elif model.template_file is not None:
        tokenizer.chat_template = model.template_file.read_text(encoding="utf-8")
    elif not tokenizer.chat_template:
        raise failure("model.chat_template", f"{model.path} comes without a chat template", CHOOSE)
    notes = repair(tokenizer)
    if tokenizer.pad_token_id in {None, tokenizer.eos_token_id}:
        known = tokenizer.get_vocab()
        spare = (name for name in SPARE if name not in {former, tokenizer.eos_token, tokenizer.bos_token})
        pad = next((name for name in (*PADS, *spare) if name in known), "<|pad|>")
        make_special(tokenizer, (pad,))
        tokenizer.pad_token = pad
    return notes


def is_ready(folder: Path) -> bool:
    """Return whether a model's tokenizer is as `prepare_tokenizer` leaves it; loading explains a missing one."""
    if not has_tokenizer(folder):
        return True
    from transformers import AutoTokenizer

    with explained_loading(str(folder), "no tokenizer can be loaded from it", folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=own_code.is_trusted(folder))
    if not tokenizer.chat_template or tokenizer.pad_token_id in {None, tokenizer.eos_token_id}:
        return False
    before = tokenizer.chat_template, tokenizer.eos_token, len(tokenizer)
    try:
        repair(tokenizer)
    except Failure:
        return False
    return before == (tokenizer.chat_template, tokenizer.eos_token, len(tokenizer))


def new_tokens(tokenizer: "PreTrainedTokenizerBase", known: set[str]) -> list[int]:
    """Return the ids of the tokens that are not in a vocabulary, but for padding, which is never learned."""
    added = (number for token, number in tokenizer.get_vocab().items() if token not in known)
    return sorted(number for number in added if number != tokenizer.pad_token_id)
