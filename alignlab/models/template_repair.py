"""Check a chat template on probe conversations before anything is trained, and repair what can be repaired.

The words of every turn have to come back, the prompt has to be a prefix of the prompt with its answer, an answer ends
with one end token, and a text begins with the token with which the tokenizer begins every text. A repair is written
into the template itself, so that a saved model is used elsewhere with the ids that it was trained with.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from alignlab.chat import MARKER, Turn, control_texts, encode, encode_prompt, fill_template
from alignlab.errors import Failure, failure
from alignlab.models.chat_templates import FAMILIES
from alignlab.models.learned_tokens import earlier_answers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SETTING = "model.chat_template"
CHOOSE = f"choose one of {', '.join(FAMILIES)}, or give a file: {SETTING}=chatml"
ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>")  # end tokens that a vocabulary may have without naming them
ANSWER = "Snow has the colour white."
PROBE: list[Turn] = [
    {"role": "user", "content": "Which colour has grass?"},
    {"role": "assistant", "content": "Grass has the colour green."},
    {"role": "user", "content": "And which one has snow?"},
]
SYSTEM: Turn = {"role": "system", "content": "Use few words."}
THOUGHT = "<think>\nIt is winter.\n</think>\n\n"

# A template that wants the content of a turn as a list of parts.
PARTS = (
    "{%- set parted = namespace(messages=[]) -%}{%- for message in messages -%}"
    "{%- set parts = [{'type': 'text', 'text': message['content']}] -%}"
    "{%- set parted.messages = parted.messages + [dict(message, content=parts)] -%}{%- endfor -%}"
    "{%- set messages = parted.messages -%}{{ '' }}"
)
# A template without system turns: their text begins the next user turn, as in Mistral's and Gemma's.
MERGED_SYSTEM = (
    "{%- set merged = namespace(messages=[], system='') -%}{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}"
    "{%- set merged.system = merged.system + message['content'] + '\\n\\n' -%}"
    "{%- elif message['role'] == 'user' -%}"
    "{%- set text = merged.system + message['content'] -%}{%- set merged.system = '' -%}"
    "{%- set merged.messages = merged.messages + [dict(message, content=text)] -%}"
    "{%- else -%}{%- if merged.system -%}"
    "{%- set merged.messages = merged.messages + [{'role': 'user', 'content': merged.system | trim}] -%}"
    "{%- set merged.system = '' -%}{%- endif -%}"
    "{%- set merged.messages = merged.messages + [message] -%}{%- endif -%}{%- endfor -%}"
    "{%- if merged.system -%}"
    "{%- set merged.messages = merged.messages + [{'role': 'user', 'content': merged.system | trim}] -%}"
    "{%- endif -%}{%- set messages = merged.messages -%}{{ '' }}"
)
# The day that templates write as today: Llama 3.1's default, a Friday.
DAY = "26 July 2024"
DATE = (
    "%d=26 %-d=26 %e=26 %m=07 %-m=7 %B=July %b=Jul %Y=2024 %y=24 %A=Friday %a=Fri %j=208 %F=2024-07-26 "
    "%H=12 %I=12 %M=00 %S=00 %p=PM %T=12:00:00 %X=12:00:00 %x=07/26/24"
)
PINNED_DATE = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(" | replace('{}', '{}')".format(*pair.split("=")) for pair in DATE.split())
    + " }}{%- endmacro -%}{{ '' }}"
)


def repair_words(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Repair what a template writes, and nothing about its ends: for a model that scores as it was published."""
    return [note for step in (choose_default, pin_date, write_words) if (note := step(tokenizer))]


def repair(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Repair the chat template, set the end token, and check both; return one sentence for each repair.

    Raises a `Failure` where a law stays broken.
    """
    notes = [give_end(tokenizer), *repair_words(tokenizer)]
    notes += [step(tokenizer) for step in (open_answer, close_once, set_end, begin_once)]
    check(tokenizer)
    return [note for note in (*notes, describe_earlier_answers(tokenizer)) if note]


def choose_default(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Choose one of several templates: the default, `chat`, or the only one."""
    templates = tokenizer.chat_template
    if not isinstance(templates, dict):
        return ""
    name = next((name for name in ("default", "chat") if name in templates), None) or next(iter(templates))
    if len(templates) > 1 and name not in {"default", "chat"}:
        what = f"the tokenizer has several chat templates ({', '.join(sorted(templates))}) and no default"
        raise failure(SETTING, what, f"write one of them to a file: {SETTING}=<file>")
    tokenizer.chat_template = templates[name]
    return "" if name == "default" else f"the chat template named {name!r} is used; the tokenizer has no default"


def give_end(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Give an end token to a tokenizer that names none, where the template writes it."""
    if tokenizer.eos_token is not None or "eos_token" not in str(tokenizer.chat_template):
        return ""
    return name_end(tokenizer)


def name_end(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Name an end token that the vocabulary has, or add one."""
    known = tokenizer.get_vocab()
    end = next((name for name in ENDS if name in known), ENDS[0])
    make_special(tokenizer, (end,))
    tokenizer.eos_token = end
    return f"the tokenizer names no end token, so an answer ends with {end}" + ("" if end in known else ", a new token")


def pin_date(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Let a template write always the same day."""
    if "strftime_now(" not in tokenizer.chat_template or PINNED_DATE in tokenizer.chat_template:
        return ""
    tokenizer.chat_template = PINNED_DATE + tokenizer.chat_template
    return f"the chat template writes today's date, which is pinned to {DAY}, so that prompts stay the same"


def write_words(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Let the template write the words of every turn; raise a `Failure` where that is not possible."""
    notes = []
    if lost(tokenizer, PROBE) and without_loss(tokenizer, PARTS, PROBE):
        notes.append("the chat template takes the text of a turn as a list of parts, and gets it so")
    if lost(tokenizer, [SYSTEM, *PROBE]) and without_loss(tokenizer, MERGED_SYSTEM, [SYSTEM, *PROBE]):
        notes.append("the chat template has no system turn, so its text begins the first user turn")
    if reason := lost(tokenizer, PROBE) or lost(tokenizer, [SYSTEM, *PROBE]):
        raise unusable(reason)
    return "; ".join(notes)


def unusable(reason: str) -> Failure:
    """Build the failure of a template that cannot be repaired."""
    return failure(SETTING, f"the chat template cannot be used: {reason}", CHOOSE)


def without_loss(tokenizer: "PreTrainedTokenizerBase", preamble: str, turns: Sequence[Turn]) -> bool:
    """Put a preamble before the template if no words are lost with it; return whether that was done."""
    return improved(tokenizer, preamble + tokenizer.chat_template, lambda: not lost(tokenizer, turns))


def improved(tokenizer: "PreTrainedTokenizerBase", template: str, is_right: Callable[[], bool]) -> bool:
    """Set a template, and set the former one again where it is not right; return whether it is."""
    former, tokenizer.chat_template = tokenizer.chat_template, template
    try:
        right = is_right()
    except Failure:
        right = False
    if not right:
        tokenizer.chat_template = former
    return right


def lost(tokenizer: "PreTrainedTokenizerBase", turns: Sequence[Turn]) -> str:
    """Return the reason why the template does not write all turns and an answer; empty where it does."""
    try:
        text = rendered(tokenizer, turns)
    except Failure as error:
        return error.faults[0].what
    if "{'type': 'text'" in text:
        return "it cuts or changes the text of a turn"  # a list of parts was written as Python writes it
    for turn in answered(turns):
        _, words, text = text.partition(turn["content"])
        if not words:
            return f"it does not write the text of a turn of role {turn['role']!r}"
    return ""


def answered(turns: Sequence[Turn], answer: str = ANSWER) -> list[Turn]:
    """Return a conversation that ends with an answer."""
    return [*turns, {"role": "assistant", "content": answer}]


def rendered(tokenizer: "PreTrainedTokenizerBase", turns: Sequence[Turn]) -> str:
    """Return what the template writes for a conversation and its answer."""
    return fill_template(tokenizer, answered(turns), {}, opens=False)


def open_answer(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Let the template open the assistant's turn where it does so only when an answer follows."""
    closed, opened = (fill_template(tokenizer, PROBE, {}, opens=opens) for opens in (False, True))
    whole = rendered(tokenizer, PROBE)
    header = whole[len(closed) :].partition(ANSWER)[0].rstrip(" ")
    if opened != closed or not whole.startswith(closed) or not header.strip():
        return ""
    opening = f"{{% if add_generation_prompt %}}{{{{ {json.dumps(header, ensure_ascii=False)} }}}}{{% endif %}}"
    template = tokenizer.chat_template.removesuffix("\n") + opening
    if not improved(tokenizer, template, lambda: whole.startswith(fill_template(tokenizer, PROBE, {}, opens=True))):
        return ""
    return f"the chat template opens no assistant turn, so {header.strip()!r} is written at the end of a prompt"


def close_once(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Leave out the end token that a template writes after an end of its own."""
    ends = ends_written(tokenizer)
    if len(ends) < 2 or ends[0] == tokenizer.eos_token or tokenizer.eos_token not in ends:
        return ""
    template = "{%- set eos_token = '' -%}{{ '' }}" + tokenizer.chat_template
    others = [end for end in ends if end != tokenizer.eos_token]
    if not improved(tokenizer, template, lambda: ends_written(tokenizer) == others):
        return ""
    return f"the chat template writes {ends[0]} and {tokenizer.eos_token} after an answer; the first one is kept"


def ends_written(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Return the control tokens that the template writes after an answer."""
    after = rendered(tokenizer, PROBE).rpartition(ANSWER)[2]
    return control_texts(tokenizer, len(tokenizer)).findall(after)


def set_end(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Set the end-of-turn token: the first one that the template writes after an answer, or the end of a text.

    Raises a `Failure` where the template ends a turn with a mark that is no token.
    """
    after = rendered(tokenizer, PROBE).rpartition(ANSWER)[2].strip()
    ends = ends_written(tokenizer)
    if not ends and after and MARKER.fullmatch(after):
        if after not in tokenizer.get_vocab():
            what = f"the chat template ends an answer with {after!r}, which is no token of the tokenizer"
            raise failure(SETTING, what, f"{SETTING}=chatml adds its tokens, or give a file that writes eos_token")
        ends = [after]
    if ends:
        make_special(tokenizer, (ends[0],))
        tokenizer.eos_token = ends[0]
    return "" if tokenizer.eos_token is not None else name_end(tokenizer)


def begin_once(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Let a text begin with the token with which the tokenizer begins every text."""
    begin = tokenizer.bos_token
    if begin is None or tokenizer("a")["input_ids"][:1] != [tokenizer.bos_token_id]:
        return ""
    if rendered(tokenizer, PROBE).startswith(begin):
        return ""
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    return f"the chat template does not begin with {begin}, which the tokenizer puts before every text, so it is added"


def describe_earlier_answers(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return a sentence where the template writes an earlier answer in another way than the last one."""
    prompt = encode_prompt(tokenizer, PROBE)
    if any(earlier_answers(tokenizer, PROBE, prompt)):
        return ""
    return "the chat template writes earlier answers differently from the last one, so only the last one is learned"


def make_special(tokenizer: "PreTrainedTokenizerBase", names: tuple[str, ...]) -> None:
    """Make names special tokens; those in the vocabulary keep their ids."""
    from tokenizers import AddedToken

    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in names], special_tokens=True)


def check(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Raise a `Failure` for the first law that the template breaks."""
    for turns in (PROBE[:1], PROBE, [SYSTEM, *PROBE[:1]], [SYSTEM, *PROBE]):
        if reason := next(broken_laws(tokenizer, turns), ""):
            raise unusable(reason)


def broken_laws(tokenizer: "PreTrainedTokenizerBase", turns: Sequence[Turn]) -> Iterator[str]:
    """Yield what is wrong with a conversation and its answer as token ids."""
    if reason := lost(tokenizer, turns):
        yield reason
        return
    for answer in (ANSWER, THOUGHT + ANSWER):
        try:
            prompt, completion = encode(tokenizer, turns, answer)
        except Failure as error:
            yield error.faults[0].what
            return
        if completion.count(tokenizer.eos_token_id) != 1 or completion[-1] != tokenizer.eos_token_id:
            yield f"an answer does not end with one {tokenizer.eos_token}"
        if prompt[:2] == [tokenizer.bos_token_id] * 2:
            yield f"a prompt begins with {tokenizer.bos_token} twice"
