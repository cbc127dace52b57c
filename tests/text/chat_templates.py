"""Chat templates as model families write them, in short, and small tokenizers that have their tokens."""

from __future__ import annotations

from typing import Any

from tokenizers import processors

from tests.tiny import ENDS, byte_level

_ROLES = "{% for m in messages %}"
_CHATML = _ROLES + "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
_ASK = "{% if add_generation_prompt %}"
_KIND = "{{ '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}"

STYLES: dict[str, str] = {
    "chatml": _CHATML + _ASK + "{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "default system": "{% if messages[0].role != 'system' %}"
    + _KIND
    + "{% endif %}"
    + _CHATML
    + _ASK
    + "{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "llama3": "{{ bos_token }}{% if messages[0].role == 'system' %}{% set s = messages[0].content | trim %}"
    "{% set rest = messages[1:] %}{% else %}{% set s = '' %}{% set rest = messages %}{% endif %}"
    "{{ '<|header|>system<|/header|>\\n\\nToday: ' + strftime_now('%d %b %Y') + '\\n\\n' + s + '<|eot_id|>' }}"
    "{% for m in rest %}{{ '<|header|>' + m.role + '<|/header|>\\n\\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    + _ASK
    + "{{ '<|header|>assistant<|/header|>\\n\\n' }}{% endif %}",
    "gemma": "{{ bos_token }}{% if messages[0].role == 'system' %}{% set s = messages[0].content + '\\n\\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set s = '' %}{% set rest = messages %}{% endif %}{% for m in rest %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else 'user') + '\\n' + (s if loop.first else '') }}"
    "{{ m.content | trim + '<end_of_turn>\\n' }}{% endfor %}" + _ASK + "{{ '<start_of_turn>model\\n' }}{% endif %}",
    "phi3": _ROLES
    + "{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{% endfor %}"
    + _ASK
    + "{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}",
    "qwen3": _ROLES
    + "{{ '<|im_start|>' + m.role + '\\n' }}"
    + "{% if m.role == 'assistant' and loop.last %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    + "{{ m.content + '<|im_end|>\\n' }}{% endfor %}"
    + _ASK
    + "{{ '<|im_start|>assistant\\n' }}{% if enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    + "{% endif %}",
    "mistral": "{{ bos_token }}{% if messages[0].role == 'system' %}{% set s = messages[0].content + '\\n\\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set s = '' %}{% set rest = messages %}{% endif %}{% for m in rest %}"
    "{% if m.role == 'user' %}{{ '[INST] ' + (s if rest[loop.index0:] | length < 2 else '') + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
    "llama2": _ROLES
    + "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}"
    + "{% elif m.role == 'assistant' %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}",
}

TOKENS = (
    *("<|begin|>", "<|header|>", "<|/header|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<think>", "</think>"),
)
EOS = {"mistral": "</s>", "llama2": "</s>", "phi3": "<|endoftext|>"}


def tokenizer_of(style: str, starts: bool = True) -> Any:
    """A byte-level tokenizer with that chat template, which puts BOS before every text if its template writes one."""
    tokenizer = byte_level((*ENDS, *TOKENS), eos=EOS.get(style, "<|im_end|>"))
    tokenizer.chat_template = STYLES[style]
    if "bos_token" in STYLES[style]:
        tokenizer.bos_token = "<|begin|>"
        if starts:
            bos = ("<|begin|>", tokenizer.convert_tokens_to_ids("<|begin|>"))
            tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
                "<|begin|> $A", "<|begin|> $A <|begin|> $B", [bos]
            )
    return tokenizer
