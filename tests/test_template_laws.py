"""The laws of chat templates, on tokenizers in the style of the families that people use."""

import copy
from functools import cache

import pytest
from command import config
from hypothesis import given, settings
from hypothesis import strategies as st
from template_styles import CHATML, IM, STYLES, Style, build, turns_of
from tiny import tiny_model, tiny_tokenizer

from alignlab.chat import control_texts, encode, encode_prompt
from alignlab.config.model import PretrainedModel
from alignlab.errors import Failure
from alignlab.models import references
from alignlab.models.chat_templates import PLAIN
from alignlab.models.pocket import base, dialogue_tokenizer
from alignlab.models.prepared_tokenizer import prepare_tokenizer
from alignlab.models.sampling import to_completion
from alignlab.models.template_repair import DAY

THINK = ("<think>", "</think>")
WORDS = ("Which", "colour", "has", "snow?", "white.", "2024", "{%", "a  b")
SYSTEM = {"role": "system", "content": "Use few words."}
USER = {"role": "user", "content": "Which colour has grass?"}
THOUGHT = "<think>\nIt is winter.\n</think>\n\nGrass has the colour green."


def settings_of(family=None):
    """Return the settings of a pretrained model with a chat template."""
    return PretrainedModel(
        kind="pretrained", path="mine", revision="main", attn_implementation=None, chat_template=family
    )


@cache
def ready(name):
    """Return a tokenizer that was made ready, the sentences of the plan, and whether a text begins with bos."""
    tokenizer = copy.deepcopy(build(name))
    notes = prepare_tokenizer(tokenizer, settings_of(STYLES[name].family))
    return tokenizer, notes


def bare(text):
    """Return a text without white space, which some tokenizers add and some templates remove."""
    return "".join(text.split())


@st.composite
def conversations(draw, marks):
    """Draw perhaps a system turn, rounds, a prompt, and an answer; turns contain the texts of control tokens."""
    words = st.lists(st.sampled_from([*WORDS, *marks]), min_size=1, max_size=5).map(" ".join)
    answers = st.lists(st.sampled_from([*WORDS, *(mark for mark in marks if mark not in THINK)]), min_size=1).map(
        " ".join
    )
    turns = [{"role": "system", "content": draw(words)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 2))):
        turns += [{"role": "user", "content": draw(words)}, {"role": "assistant", "content": draw(answers)}]
    return [*turns, {"role": "user", "content": draw(words)}], draw(answers)


@pytest.mark.parametrize("name", STYLES)
def test_the_laws_hold_for_a_style(name):
    tokenizer, notes = ready(name)
    control = control_texts(tokenizer, len(tokenizer))
    marks = sorted(text for text in map(str, tokenizer.added_tokens_decoder.values()) if control.fullmatch(text))
    ids_of_marks = tokenizer.convert_tokens_to_ids(marks)
    assert STYLES[name].repair in "; ".join(notes)
    assert STYLES[name].repair or not notes
    again = copy.deepcopy(tokenizer)
    prepare_tokenizer(again, settings_of())
    assert (again.chat_template, len(again)) == (tokenizer.chat_template, len(tokenizer))

    @settings(max_examples=12, deadline=None, database=None)
    @given(conversation=conversations(marks))
    def laws(conversation):
        turns, answer = conversation
        prompt, completion = encode(tokenizer, turns, answer)
        assert prompt == encode_prompt(tokenizer, turns)  # training ids are sampling ids
        assert completion.count(tokenizer.eos_token_id) == 1
        assert completion[-1] == tokenizer.eos_token_id != tokenizer.pad_token_id
        text = bare(tokenizer.decode(prompt))
        for turn in turns:
            _, words, text = text.partition(bare(turn["content"]))
            assert words, (turn, tokenizer.decode(prompt))
        assert bare(answer) in bare(tokenizer.decode(completion))
        if STYLES[name].adds_bos:
            assert prompt[0] == tokenizer.bos_token_id != prompt[1]
        plain = [{**turn, "content": "Which"} for turn in turns]
        harmless = [token for part in encode(tokenizer, plain, "Which") for token in part]
        for mark in ids_of_marks:
            assert (prompt + completion).count(mark) == harmless.count(mark)

    laws()


@pytest.mark.parametrize("name", STYLES)
def test_plain_words_get_the_ids_of_transformers(name):
    tokenizer = ready(name)[0]
    theirs = tokenizer.apply_chat_template([SYSTEM, USER], add_generation_prompt=True, return_dict=False)
    assert encode_prompt(tokenizer, [SYSTEM, USER]) == theirs


@pytest.mark.parametrize("name", ["qwen 3", "qwen 3 thinking", "r1 old", "r1 new", "qwen 2.5", "llama 3", "glm"])
def test_the_reasoning_of_an_answer_is_learned_once(name):
    tokenizer = ready(name)[0]
    prompt, completion = encode(tokenizer, [USER], THOUGHT)
    text = tokenizer.decode(prompt + completion).removesuffix(tokenizer.eos_token)
    assert text.endswith(THOUGHT)
    assert text.count("<think>") == text.count("It is winter.") == 1
    assert prompt == encode_prompt(tokenizer, [USER])
    other = encode(tokenizer, [USER], THOUGHT.replace("winter", "grass"))
    assert other.prompt == prompt
    assert other.completion != completion


def test_an_answer_without_reasoning_closes_what_the_prompt_opens():
    tokenizer = ready("r1 new")[0]
    prompt, completion = encode(tokenizer, [USER], "Green.")
    assert tokenizer.decode(prompt).endswith("<|Assistant|><think>\n")
    assert tokenizer.decode(completion) == "\n</think>\n\nGreen.<|finish|>"
    sampled = encode(tokenizer, [USER], "It is winter.\n</think>\n\nGreen.")  # as the model writes after the prompt
    assert tokenizer.decode(sampled.completion) == "It is winter.\n</think>\n\nGreen.<|finish|>"


def test_the_text_of_a_completion_keeps_its_reasoning(monkeypatch):
    monkeypatch.setitem(STYLES, "special marks", Style(CHATML, (*IM, *THINK)))
    tokenizer = build("special marks")
    prepare_tokenizer(tokenizer, settings_of())
    ids = encode(tokenizer, [USER], THOUGHT).completion
    assert to_completion(tokenizer, ids, {tokenizer.eos_token_id}).text == THOUGHT


def test_a_date_is_the_same_every_day():
    tokenizer = ready("gpt-oss")[0]
    assert "Today: 2024-07-26" in tokenizer.decode(encode_prompt(tokenizer, [USER]))
    assert "Today: 26 Jul 2024" in ready("llama 3")[0].decode(encode_prompt(ready("llama 3")[0], [USER]))
    assert DAY in ready("gpt-oss")[1][0]


def test_a_date_is_pinned_once(monkeypatch):
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    monkeypatch.setitem(STYLES, "dated", Style("{{ strftime_now('%Y') }}" + refusing + CHATML, IM))
    tokenizer = build("dated")
    assert len(prepare_tokenizer(tokenizer, settings_of())) == 2
    assert prepare_tokenizer(tokenizer, settings_of()) == []


def test_a_system_turn_begins_the_first_user_turn():
    tokenizer = ready("gemma 2")[0]
    text = tokenizer.decode(encode_prompt(tokenizer, [SYSTEM, USER]))
    assert "user\nUse few words.\n\nWhich colour has grass?<end_of_turn>" in text


REFUSED = {
    "several templates, none the default": (
        Style({"rag": CHATML, "tool_use": CHATML}, IM), "several chat templates (rag, tool_use) and no default; write"
    ),
    "an end that is no token": (Style(CHATML), "ends an answer with '<|im_end|>', which is no token of the tokenizer"),
    "an answer that is not written": (
        Style("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"),
        "the text of a turn of role 'assistant'"
    ),
    "a text that is cut": (Style(CHATML.replace(".content", ".content[:4]"), IM),
                           "it does not write the text of a turn of role 'user'"),
    "a prompt that changes": (
        Style("{{ messages | length }}" + CHATML, IM),
        "the prompt's tokens change when the answer follows; choose one of"
    ),
    "two begins": (
        Style("{{ bos_token }}{{ bos_token }}" + CHATML, IM, bos="<s>"), "a prompt begins with <s> twice"
    ),
    "a template that is no Jinja": (Style("{% for m in %}", IM), "it refuses a conversation"),
    "none": (Style(None), "mine comes without a chat template; choose one of chatml, llama3"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_repaired_is_one_sentence(name, monkeypatch):
    style, message = REFUSED[name]
    monkeypatch.setitem(STYLES, f"refused: {name}", style)
    with pytest.raises(Failure, match=r"model\.chat_template: ") as caught:
        prepare_tokenizer(build(f"refused: {name}"), settings_of())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_to_start_from_is_made_ready_unless_it_is(tmp_path):
    dialogues = dialogue_tokenizer.make_tokenizer()
    dialogues.chat_template = PLAIN
    kinds = {"pocket": base.make_tokenizer(), "t5": dialogues, "tiny": tiny_tokenizer(), "ready": ready("gemma 2")[0]}
    for name, tokenizer in (kinds | {"published": build("gemma 2")}).items():
        tiny_model().save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        model = references.policy_to_prepare(config(), "method.policy", str(tmp_path / name))
        assert (model and model.path) == (str(tmp_path / name) if name == "published" else None)


def test_a_template_from_a_file(tmp_path):
    file = tmp_path / "mine.jinja"
    file.write_text(turns_of("'### ' + m.role + '\\n'", "eos_token + '\\n'", "### assistant\\n"))
    tokenizer = copy.deepcopy(build("gpt-2"))
    assert prepare_tokenizer(tokenizer, settings_of(str(file))) == []
    assert tokenizer.decode(encode_prompt(tokenizer, [USER])).endswith("### assistant\n")
    assert next(fault.where for fault in settings_of("chatlm").faults()) == "chat_template"
