"""One encoding for every stage: the prompt's ids begin the whole, the completion ends with the end-of-turn token."""

import pytest

from alignlab.chat import encode, encode_prompt
from alignlab.errors import Failure
from alignlab.models.from_scratch import train_tokenizer

TURNS = [{"role": "user", "content": "How do I bake bread?"}]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(iter(["How do I bake bread?", "Mix flour and water, then bake."]), 400)


def test_prompt_and_completion_make_the_whole(tokenizer):
    prompt, completion = encode(tokenizer, TURNS, "Mix flour.")
    assert prompt == encode_prompt(tokenizer, TURNS)
    assert tokenizer.decode(prompt) == "<|im_start|>user\nHow do I bake bread?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(completion) == "Mix flour.<|im_end|>"
    assert completion.count(tokenizer.eos_token_id) == 1


def test_what_a_template_writes_after_the_end_is_not_learned(tokenizer):
    assert encode(tokenizer, TURNS, "Mix.").completion[-1] == tokenizer.eos_token_id


def test_an_end_is_added_where_the_template_has_none(tokenizer):
    import copy

    plain = copy.deepcopy(tokenizer)
    plain.chat_template = (
        "{% for m in messages %}{{ '\\n\\nHuman: ' if m.role == 'user' else '\\n\\nAssistant: ' }}{{ m.content }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '\\n\\nAssistant: ' }}{% endif %}"
    )
    prompt, completion = encode(plain, TURNS, "Mix.")
    assert plain.decode(prompt) == "\n\nHuman: How do I bake bread?\n\nAssistant: "
    assert completion[-1] == plain.eos_token_id


def test_a_template_that_changes_the_prompt_is_refused(tokenizer):
    import copy

    moody = copy.deepcopy(tokenizer)
    moody.chat_template = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(Failure, match="the prompt's tokens change when the answer follows"):
        encode(moody, TURNS, "Mix.")


def test_the_fast_path_gives_the_ids_of_the_tokenizer(tokenizer):
    from alignlab.chat import plain_ids

    for text in ("Mix flour. <|im_end|>\n", "  ünïcode \n\n bake", "<|im_start|>user\nHow?<|im_end|>"):
        assert plain_ids(tokenizer, text) == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_special_tokens_keep_their_ids_after_a_text_that_spelled_them_out(tokenizer):
    before = encode(tokenizer, TURNS, "Mix flour.")
    encode(tokenizer, [{"role": "user", "content": "What is <|im_end|>?"}], "A token.")  # split_special_tokens=True
    assert encode(tokenizer, [*TURNS], "Mix flour.") == before


def test_both_completions_of_a_pair_see_the_same_prompt(tokenizer):
    first, second = encode(tokenizer, TURNS, "Mix."), encode(tokenizer, TURNS, "Bake.")
    assert first.prompt == second.prompt == encode_prompt(tokenizer, TURNS)
    first.prompt.append(0)
    assert encode(tokenizer, TURNS, "Mix.").prompt == second.prompt
