"""Every template on tokenizers of the families' kinds: the words come back, and nothing else is learned.

What a template should write is said here a second time, in Python, and compared with what the token ids decode to.
"""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from alignlab.chat import encode, encode_prompt
from alignlab.models.chat_templates import FAMILIES

TEXTS = [
    "How do I bake bread?",
    "Mix flour and water, then bake it.\n\nHuman: Assistant: [INST] [/INST]",
    "user system",
]
INJECTIONS = ["<|im_end|>", "<|im_start|>", "</s>", "<s>", "<|eot_id|>", "<|endoftext|>", "[/INST]", "\U000f0000", "<|"]


def byte_level(bos, eos, family):
    """A byte-level BPE, the kind of GPT-2, GPT-NeoX, Qwen, SmolLM2 and Llama 3."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = dict.fromkeys(["<|pad|>", *filter(None, [bos, eos]), *FAMILIES[family].tokens])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[*special], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(TEXTS * 3, trainer)
    return wrapped(core, bos, FAMILIES[family].end or eos, family)


def with_metaspace(family):
    """A BPE over characters with byte fallback and a mark for spaces, the kind of Llama 2 and Mistral 7B v0.1."""
    core = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    core.decoder = decoders.Sequence(steps)
    special = ["<unk>", "<s>", "</s>", "<|pad|>"]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    core.train_from_iterator(TEXTS * 3, trainer)
    tree = json.loads(core.to_str())
    for code in range(256):
        tree["model"]["vocab"].setdefault(f"<0x{code:02X}>", len(tree["model"]["vocab"]))
    return wrapped(Tokenizer.from_str(json.dumps(tree)), "<s>", "</s>", family)


def wrapped(core, bos, eos, family):
    core.add_special_tokens([AddedToken(eos, special=True, normalized=False)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<|pad|>", bos_token=bos, eos_token=eos, clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = FAMILIES[family].template
    return tokenizer


def chatml(turns, _):
    return "".join(f"<|im_start|>{t['role']}\n{t['content']}<|im_end|>\n" for t in turns), "<|im_start|>assistant\n"


def llama3(turns, _):
    head = "<|start_header_id|>{}<|end_header_id|>\n\n"
    said = [f"{head.format(t['role'])}{t['content'].strip()}<|eot_id|>" for t in turns]
    return "<|begin_of_text|>" + "".join(said), head.format("assistant")


def mistral(turns, _):
    said, waiting = "<s>", ""
    for turn in turns:
        if turn["role"] == "system":
            waiting = turn["content"] + "\n\n"
        elif turn["role"] == "user":
            said, waiting = f"{said}[INST] {waiting}{turn['content']} [/INST]", ""
        else:
            said += f" {turn['content']}</s>"
    return said, " "


def zephyr(turns, _):
    return "".join(f"<|{t['role']}|>\n{t['content']}</s>\n" for t in turns), "<|assistant|>\n"


def hh(turns, bos):
    names = {"user": "Human", "assistant": "Assistant", "system": "System"}
    return bos + "".join(f"\n\n{names[t['role']]}: {t['content']}" for t in turns), "\n\nAssistant: "


def text(turns, _):
    said = "".join(
        f" {t['content']}<|endoftext|>" if t["role"] == "assistant" else "\n" * (number > 0) + t["content"]
        for number, t in enumerate(turns)
    )
    return said, " "


# name: tokenizer, what the family writes for turns and before an answer, bos as it is written, what ends an answer
KINDS = {
    "chatml": (byte_level(None, "<|endoftext|>", "chatml"), chatml, "", "<|im_end|>"),
    "llama3": (byte_level("<|begin_of_text|>", "<|end_of_text|>", "llama3"), llama3, "<|begin_of_text|>", "<|eot_id|>"),
    "mistral": (with_metaspace("mistral"), mistral, "<s>", "</s>"),
    "zephyr": (with_metaspace("zephyr"), zephyr, "", "</s>"),
    "hh, bos is eos (Pythia)": (byte_level("<|endoftext|>", "<|endoftext|>", "hh"), hh, "", "<|endoftext|>"),
    "text": (byte_level(None, "<|endoftext|>", "text"), text, "", "<|endoftext|>"),
    "hh, bos of its own (Llama)": (byte_level("<s>", "</s>", "hh"), hh, "<s>", "</s>"),
}
WORDS = st.lists(
    st.one_of(st.sampled_from([*INJECTIONS, " ", "\n", "bread", "Mix flour"]), st.text(max_size=6)), max_size=5
).map("".join)
SPOKEN = WORDS.filter(lambda text: "▁" not in text and "\x00" not in text)


@st.composite
def conversations(draw):
    """Perhaps a system turn, then user and assistant by turns, up to a user's."""
    system = [{"role": "system", "content": draw(SPOKEN)}] if draw(st.booleans()) else []
    rounds = draw(st.lists(st.tuples(SPOKEN, SPOKEN), max_size=2))
    both = [
        {"role": role, "content": words}
        for pair in rounds
        for role, words in zip(("user", "assistant"), pair, strict=True)
    ]
    return [*system, *both, {"role": "user", "content": draw(SPOKEN)}], draw(SPOKEN)


def special_count(tokenizer, ids):
    return sum(ids.count(i) for i, token in tokenizer.added_tokens_decoder.items() if token.special)


def text_of(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(conversation=conversations())
def test_the_mask_covers_the_assistants_words_and_the_end_token(kind, conversation):
    tokenizer, family, bos, end = KINDS[kind]
    turns, answer = conversation
    prompt, completion = encode(tokenizer, turns, answer)
    said, opening = family(turns, bos)
    words = answer.strip() if kind == "llama3" else answer
    assert completion[-1] == tokenizer.convert_tokens_to_ids(end)
    assert special_count(tokenizer, completion) == 1
    assert prompt == encode_prompt(tokenizer, turns)
    assert prompt.count(tokenizer.bos_token_id) == (1 if bos else 0) or not tokenizer.bos_token
    if kind in {"mistral", "zephyr"}:  # their tokenizers put a space before what follows a special token
        bare = "".join(text_of(tokenizer, completion[:-1]).split())
        assert bare == "".join(words.split())
        assert "".join(text_of(tokenizer, prompt).split()) == "".join((said + opening).split())
    else:
        assert text_of(tokenizer, prompt) == said + opening.removesuffix(" ")
        assert text_of(tokenizer, completion[:-1]) == " " * opening.endswith(" ") + words


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(conversation=conversations())
def test_only_the_template_writes_special_tokens(kind, conversation):
    tokenizer = KINDS[kind][0]
    turns, _ = conversation
    silent = [{**turn, "content": ""} for turn in turns]
    assert special_count(tokenizer, encode_prompt(tokenizer, turns)) == special_count(
        tokenizer, encode_prompt(tokenizer, silent)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_plain_words_get_the_ids_that_transformers_gives_them(kind):
    tokenizer = KINDS[kind][0]
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How?"},
        {"role": "assistant", "content": "Mix."},
        {"role": "user", "content": "And then?"},
    ]
    whole = [*turns, {"role": "assistant", "content": "bake it"}]
    prompt, completion = encode(tokenizer, turns, "bake it")
    theirs = tokenizer.apply_chat_template(whole, return_dict=False)
    ours = prompt + completion
    assert ours[: len(theirs)] == theirs[: len(ours)]
    assert prompt == tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)


def test_a_tokenizer_that_learns_new_special_tokens_hides_them_too():
    tokenizer = copy.deepcopy(KINDS["chatml"][0])
    turns = [{"role": "user", "content": "say <|new|>"}]
    before = encode_prompt(tokenizer, turns)
    tokenizer.add_tokens([AddedToken("<|new|>", special=True, normalized=False)])
    assert encode_prompt(tokenizer, turns) == before
