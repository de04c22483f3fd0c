"""Chat templates that families of models share, by name, with the special tokens that they need.

A template is stored with the tokenizer when a model is prepared. Each is additive: the text of a prompt is a prefix of
the text of the prompt with its answer.
"""

from typing import NamedTuple


class Family(NamedTuple):
    """A Jinja template, the special tokens that it writes, and the one that ends an answer (None: eos)."""

    template: str
    tokens: tuple[str, ...] = ()
    end: str | None = None


START, END = "<|im_start|>", "<|im_end|>"

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Llama 3's template without tools: contents are trimmed.
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim }}"
    "{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
# Mistral has no system turn: its text begins the next user turn.
MISTRAL = (
    "{{ bos_token }}{% set waiting = namespace(words='') %}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{% set waiting.words = waiting.words + message['content'] + '\\n\\n' %}"
    "{% elif message['role'] == 'user' %}"
    "{{ '[INST] ' + waiting.words + message['content'] + ' [/INST]' }}{% set waiting.words = '' %}"
    "{% else %}"
    "{% if waiting.words %}{{ '[INST] ' + waiting.words + ' [/INST]' }}{% set waiting.words = '' %}{% endif %}"
    "{{ ' ' + message['content'] + eos_token }}"
    "{% endif %}{% endfor %}"
    "{% if waiting.words %}{{ '[INST] ' + waiting.words + ' [/INST]' }}{% endif %}"
)
# alignment-handbook's template of Zephyr; the role names are plain text.
ZEPHYR = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
# HH-RLHF's transcripts; only the last answer has an end token, which `alignlab.chat` adds.
HH = (
    "{% if bos_token and bos_token != eos_token %}{{ bos_token }}{% endif %}"
    "{% set speakers = {'user': 'Human', 'assistant': 'Assistant', 'system': 'System'} %}"
    "{% for message in messages %}"
    "{{ '\\n\\n' + speakers[message['role']] + ': ' + message['content'] }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}"
)

# The text of the turns only, for encoder-decoders: the encoder's input ends with eos, as T5's does.
PLAIN = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token + message['content'] + eos_token }}"
    "{% else %}{{ '\\n' if loop.previtem is defined and loop.previtem['role'] != 'assistant' }}"
    "{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ eos_token }}{% endif %}"
)
# The text of the turns only, for decoders that continue a text: a space, the answer, and eos.
TEXT = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
    "{% else %}{{ '\\n' if not loop.first }}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
)

FAMILIES = {
    "chatml": Family(CHATML, (START, END), END),
    "llama3": Family(LLAMA3, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), "<|eot_id|>"),
    "mistral": Family(MISTRAL),
    "zephyr": Family(ZEPHYR),
    "hh": Family(HH),
    "plain": Family(PLAIN),
    "text": Family(TEXT),
}
