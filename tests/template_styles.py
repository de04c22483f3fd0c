"""Small tokenizers with chat templates in the style of the families that people use.

A tokenizer is trained on a few lines: byte-level BPE (GPT-2, Qwen, Llama 3), BPE over characters with a mark for
spaces before every part (Llama 2) or before the first one, and Unigram (T5, Gemma's older relatives).
"""

from functools import cache
from typing import NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

LINES = (
    "Which colour has grass? Grass has the colour green. And which one has snow? Snow has the colour white.",
    "Use few words. It is winter. 26 Jul 2024, 2024-07-26 [INST] <|user|> system assistant model think",
    "".join(map(chr, range(33, 127))),
)
LOOP, END = "{% for m in messages %}", "{% endfor %}"
OPEN = "{{% if add_generation_prompt %}}{{{{ '{}' }}}}{{% endif %}}"


class Style(NamedTuple):
    """A tokenizer to build; `family` is the setting of `model.chat_template`, `repair` a part of what the plan says."""

    template: str | dict[str, str] | None
    tokens: tuple[str, ...] = ()  # control tokens
    others: tuple[str, ...] = ()  # added tokens that are not marked as special
    bos: str | None = None
    eos: str | None = "<|endoftext|>"
    kind: str = "bytes"
    adds_bos: bool = False
    pads_with_eos: bool = False
    family: str | None = None
    repair: str = ""


def turns_of(start: str, end: str, opening: str) -> str:
    """Return a template that writes each turn between a start and an end, which may name the role."""
    return LOOP + "{{ " + start + " + m.content + " + end + " }}" + END + OPEN.format(opening)


CHATML = turns_of("'<|im_start|>' + m.role + '\\n'", "'<|im_end|>\\n'", "<|im_start|>assistant\\n")
IM = ("<|im_start|>", "<|im_end|>")
HEADER = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
ALTERNATE = (
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
LLAMA2 = (
    "{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0].content %}"
    "{% else %}{% set rest = messages %}{% set system = '' %}{% endif %}{% for m in rest %}" + ALTERNATE + "{% if "
    "m.role == 'user' %}{{ bos_token + '[INST] ' + ('<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' if system "
    "and loop.first else '') + m.content.strip() + ' [/INST]' }}{% else %}"
    "{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}" + END
)
LLAMA3 = (
    "{% set head = '<|start_header_id|>' %}{% if strftime_now is defined %}{% set day = strftime_now('%d %b %Y') %}"
    "{% else %}{% set day = '26 Jul 2024' %}{% endif %}"
    "{{ bos_token + head + 'system<|end_header_id|>\\n\\nToday: ' + day }}"
    "{% if messages[0].role == 'system' %}{{ '\\n\\n' + messages[0].content | trim }}{% set messages = messages[1:] %}"
    "{% endif %}{{ '<|eot_id|>' }}{% for m in messages %}{{ head + m.role + '<|end_header_id|>\\n\\n' + m.content "
    "| trim + '<|eot_id|>' }}" + END + OPEN.format("<|start_header_id|>assistant<|end_header_id|>\\n\\n")
)
MISTRAL = (
    "{{ bos_token }}" + LOOP + ALTERNATE + "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ SPACE m.content + eos_token }}{% endif %}" + END
)
MISTRAL_SYSTEM = MISTRAL.replace(LOOP, "{% for m in messages if m.role != 'system' %}")
GEMMA2 = (
    "{{ bos_token }}" + NO_SYSTEM + LOOP + ALTERNATE + "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else "
    "m.role) + '\\n' + m.content | trim + '<end_of_turn>\\n' }}" + END + OPEN.format("<start_of_turn>model\\n")
)
GEMMA3 = (
    "{{ bos_token }}{% set first = '' %}{% if messages[0].role == 'system' %}"
    "{% set first = messages[0].content + '\\n\\n' %}{% set messages = messages[1:] %}{% endif %}"
    + LOOP
    + "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else "
    "m.role) + '\\n' + (first if loop.first else '') }}{% if m.content is string %}{{ m.content | trim }}{% else %}"
    "{% for part in m.content %}{{ part.text | trim }}{% endfor %}{% endif %}{{ '<end_of_turn>\\n' }}"
    + END
    + OPEN.format("<start_of_turn>model\\n")
)
QWEN25 = "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{% endif %}" + CHATML
QWEN3 = (
    LOOP + "{% set text = m.content %}{% set thought = '' %}{% if m.role == 'assistant' and '</think>' in text %}"
    "{% set thought = text.split('</think>')[0].split('<think>')[-1].strip('\\n') %}"
    "{% set text = text.split('</think>')[-1].lstrip('\\n') %}{% endif %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.role == 'assistant' and loop.last %}{{ '<think>\\n' + thought + '\\n</think>\\n\\n' }}{% endif %}"
    "{{ text + '<|im_end|>\\n' }}" + END + OPEN.format("<|im_start|>assistant\\n")
)
R1 = (
    "{{ bos_token }}"
    + LOOP
    + "{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}{{ '<|User|>' + m.content }}"
    "{% else %}{{ '<|Assistant|>' + m.content.split('</think>')[-1] + eos_token }}{% endif %}" + END
)
PHI3 = (
    LOOP + "{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}" + END + "{% if add_generation_prompt %}"
    "{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"
)
FALCON = (
    LOOP
    + "{{ '\\n\\n' if not loop.first }}{{ {'user': 'User', 'assistant': 'Assistant', 'system': 'System'}[m.role] }}"
    "{{ ': ' + m.content }}" + END + OPEN.format("\\n\\nAssistant:")
)
OLMO = (
    "{{ bos_token }}"
    + LOOP
    + "{{ '<|' + m.role + '|>\\n' + m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "{{ '\\n' if not (loop.last and m.role == 'assistant') }}" + END + OPEN.format("<|assistant|>\\n")
)
COMMAND_R = {
    name: "{{ bos_token }}" + LOOP + "{{ '<|START_OF_TURN_TOKEN|>' + {'user': '<|USER_TOKEN|>', 'assistant': "
    "'<|CHATBOT_TOKEN|>', 'system': '<|SYSTEM_TOKEN|>'}[m.role] + m.content + '<|END_OF_TURN_TOKEN|>' }}" + END
    + OPEN.format("<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>")
    for name in ("default", "rag")
}  # fmt: skip
GPT_OSS = (
    "{{ '<|start|>system<|message|>Today: ' + strftime_now('%Y-%m-%d') + '<|end|>' }}" + LOOP
    + "{% if m.role == 'assistant' %}{{ '<|start|>assistant<|channel|>final<|message|>' + m.content }}"
    "{{ '<|return|>' if loop.last else '<|end|>' }}"
    "{% else %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}" + END
    + OPEN.format("<|start|>assistant")
)  # fmt: skip
PARTS = (
    LOOP + "{{ '<|im_start|>' + m.role + '\\n' }}{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}"
    "{% endif %}{% endfor %}{{ '<|im_end|>\\n' }}" + END + OPEN.format("<|im_start|>assistant\\n")
)
SEEK = {
    "bos": "<|begin|>",
    "eos": "<|finish|>",
    "tokens": ("<|User|>", "<|Assistant|>"),
    "others": ("<think>", "</think>"),
}
LLAMA = {"bos": "<s>", "eos": "</s>", "adds_bos": True}

STYLES = {
    "llama 2": Style(LLAMA2, **LLAMA, kind="llama"),
    "llama 3": Style(LLAMA3, HEADER, bos="<|begin_of_text|>", adds_bos=True, repair="26 July 2024"),
    "mistral v1": Style(MISTRAL_SYSTEM.replace("SPACE", ""), **LLAMA, kind="llama", repair="no system turn"),
    "mistral v3": Style(
        MISTRAL_SYSTEM.replace("SPACE", "' ' +"), ("[INST]", "[/INST]"), **LLAMA, kind="first", repair="no system turn"
    ),
    "mistral strict": Style(MISTRAL.replace("SPACE", "' ' +"), **LLAMA, kind="llama", repair="no system turn"),
    "gemma 2": Style(
        GEMMA2, ("<start_of_turn>", "<end_of_turn>"), bos="<bos>", eos="<eos>", adds_bos=True, kind="never",
        repair="no system turn",
    ),
    "gemma 3": Style(
        GEMMA3, ("<start_of_turn>", "<end_of_turn>"), bos="<bos>", eos="<eos>", adds_bos=True, kind="unigram"
    ),
    "qwen 2.5": Style(QWEN25, IM, ("<tool_call>",), eos="<|im_end|>"),
    "qwen 3": Style(QWEN3, IM, ("<think>", "</think>"), eos="<|im_end|>", repair="only the last one"),
    "qwen 3 thinking": Style(
        QWEN3.replace("assistant\\n' }}{% endif", "assistant\\n<think>\\n' }}{% endif"), IM, ("<think>", "</think>"),
        repair="only the last one",
    ),
    "r1 old": Style(R1 + OPEN.format("<|Assistant|>"), **SEEK, adds_bos=True),
    "r1 new": Style(R1 + OPEN.format("<|Assistant|><think>\\n"), **SEEK, adds_bos=True, repair="only the last one"),
    "phi 3": Style(
        PHI3, ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>"), **LLAMA | {"adds_bos": False}, kind="llama",
        pads_with_eos=True, repair="<|end|> and </s> after an answer",
    ),
    "phi 4": Style(
        turns_of("'<|im_start|>' + m.role + '<|im_sep|>'", "'<|im_end|>'", "<|im_start|>assistant<|im_sep|>"),
        (*IM, "<|im_sep|>"),
    ),
    "smollm 2": Style(QWEN25, IM, bos="<|im_start|>", eos="<|im_end|>", pads_with_eos=True),
    "falcon": Style(FALCON, pads_with_eos=True),
    "olmo": Style(OLMO, bos="<|endoftext|>", pads_with_eos=True),
    "command r": Style(
        COMMAND_R, ("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"),
        ("<|SYSTEM_TOKEN|>",), bos="<BOS_TOKEN>", adds_bos=True,
    ),
    "command r without default": Style(
        {"chat": COMMAND_R["default"], "rag": COMMAND_R["rag"]}, ("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
        bos="<BOS_TOKEN>", adds_bos=True, repair="named 'chat' is used",
    ),
    "glm": Style(
        "{{ '[gMASK]<sop>' }}" + turns_of("'<|' + m.role + '|>\\n'", "''", "<|assistant|>"),
        ("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|system|>"),
    ),
    "gpt-oss": Style(
        GPT_OSS, ("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>"), repair="26 July 2024"
    ),
    "zephyr": Style(
        turns_of("'<|' + m.role + '|>\\n'", "eos_token + '\\n'", "<|assistant|>\\n"), **LLAMA, kind="llama",
        repair="does not begin with <s>",
    ),
    "chatml, marks that are not special": Style(CHATML, (), IM, pads_with_eos=True),
    "chatml without a generation prompt": Style(CHATML.partition("{% if add")[0], IM, repair="opens no assistant turn"),
    "parts": Style(PARTS, IM, repair="a list of parts"),
    "gpt-2": Style(None, bos="<|endoftext|>", pads_with_eos=True, family="text"),
    "no eos": Style(None, eos=None, family="hh", repair="names no end token"),
    "t5": Style(None, eos="</s>", kind="unigram", family="plain"),
    "our chatml on llama": Style(None, **LLAMA, kind="first", family="chatml", repair="does not begin with <s>"),
    "our zephyr on mistral": Style(None, **LLAMA, kind="llama", family="zephyr", repair="does not begin with <s>"),
    "our llama3": Style(None, bos="<|begin_of_text|>", adds_bos=True, family="llama3"),
}  # fmt: skip


@cache
def build(name: str) -> PreTrainedTokenizerFast:
    """Build the tokenizer of a style, as it would be published."""
    style = STYLES[name]
    core = (bytes_core if style.kind == "bytes" else unigram_core if style.kind == "unigram" else character_core)(style)
    for special, names in ((True, (style.bos, style.eos, *style.tokens)), (False, style.others)):
        core.add_tokens([AddedToken(text, special=special, normalized=False) for text in names if text])
    if style.adds_bos:
        core.post_processor = processors.TemplateProcessing(
            f"{style.bos} $A", special_tokens=[(style.bos, core.token_to_id(style.bos))]
        )
    pad = {"pad_token": style.eos} if style.pads_with_eos else {}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=style.bos, eos_token=style.eos, clean_up_tokenization_spaces=False, **pad
    )
    tokenizer.chat_template = style.template
    return tokenizer


def bytes_core(style: Style) -> Tokenizer:
    """Train a byte-level BPE."""
    core = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(r"\s?[A-Za-z]+|\d|\s+(?!\S)|[^\sA-Za-z\d]+|\s+"), "isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False))
    return core


def character_core(style: Style) -> Tokenizer:
    """Train a BPE over characters; a mark for spaces stands before every part, the first one, or none."""
    core = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    if style.kind == "llama":
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    else:
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=style.kind, split=False)
        core.decoder = decoders.Metaspace(prepend_scheme=style.kind)
    kept, core.pre_tokenizer = core.pre_tokenizer, pre_tokenizers.Metaspace(prepend_scheme="never")  # splits at words
    special = ["<unk>", *filter(None, (style.bos, style.eos))]
    core.train_from_iterator(
        LINES, trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=["\n"], show_progress=False)
    )
    core.pre_tokenizer = kept
    return core


def unigram_core(style: Style) -> Tokenizer:
    """Train a Unigram model whose vocabulary holds the control tokens, as SentencePiece's does."""
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    core.decoder = decoders.Metaspace(prepend_scheme="first")
    special = ["<unk>", *filter(None, (style.bos, style.eos, *style.tokens))]
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=special, unk_token="<unk>", initial_alphabet=["\n"], show_progress=False
    )
    core.train_from_iterator(LINES * 3, trainer)
    return core
