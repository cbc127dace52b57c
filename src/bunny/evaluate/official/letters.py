"""Which choice a free answer names, as the public evaluation kits decide it without asking a language model.

In: an answer and the choices (letter -> text). Out: a letter, or an empty string where the kit finds none. `vlmevalkit`
is VLMEvalKit's exact matching, which also stands for MMBench's server (that one asks a language model about the rest,
so it can only find more); `lmms_eval` is lmms-eval's static matching; the `scienceqa…` rules are those scripts' own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

REFUSED = "Z"
"""What VLMEvalKit reads where a model refuses, or where nothing can be matched; it is never right."""

_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_NO_ANSWER = "Failed to obtain answer via API"
_SPACED = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_VERBOSE = re.compile(r"(?i)(?:correct\s+)?answer\s+is\s+\**([ABCD])\**")
_ENCLOSED = [("", ""), ("", "."), ("", ","), ("", ":"), ("", ")"), ("", ")."), ("(", ")"), ("(", ").")]
_ENCLOSED += [(":", ""), (":", ","), (":", "."), (":", ")"), (":", ").")]
_THE_ANSWER = re.compile(r"The answer is ([A-Z]).")
_FIVE = "ABCDE"

_PHRASES = [
    f"{best}{kind} is" for kind in ("answer", "option") for best in ("the correct ", "correct ", "the best ", "best ")
]
_PHRASES += ["the answer is", "answer is", "the choice is", "choice is", "the correct choice is", "correct choice is"]
_PHRASES += ["i choose", "i select", "i pick", "my answer is", "my choice is"]
_PHRASES += ["옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"]


def vlmevalkit(text: str, choices: Mapping[str, str]) -> str:
    """The only choice whose letter stands near the end, else after "answer is", else whose words are in the answer.

    >>> vlmevalkit("The correct answer is (B).", {"A": "cat", "B": "dog"})
    'B'
    """
    if _NO_ANSWER in text:
        return _by_words(text, choices, short=True)
    if any(refusal in text for refusal in _REFUSALS):
        return REFUSED
    words = text.translate(_SPACED).split()
    named = [choice for choice in choices if choice in words]
    if len(named) == 1 and words.index(named[0]) > len(words) - 5:
        return named[0]
    if not named and REFUSED in words:
        return REFUSED
    verbose = _VERBOSE.search(text)
    if verbose and verbose[1].upper() in choices:
        return verbose[1].upper()
    return _by_words(text, choices, short=True)


def lmms_eval(text: str, choices: Mapping[str, str]) -> str:
    """lmms-eval's MMBench rules: a lone letter with or without marks, else the words, else the likeliest place."""
    words = text.split()
    for number, (before, after) in enumerate(_ENCLOSED):
        named = [choice for choice in _FIVE if before + choice + after in words]
        if len(named) == 1 and not (number == 0 and "A" in words and len(words) > 3):
            return named[0]
    return _by_words(text, choices, short=False) or _likeliest(text, sorted(choices))


def scienceqa(text: str) -> str:
    """The letter of "B", "B. a dog" or one "The answer is B.": ScienceQA's rules in LLaVA and the original Bunny."""
    if text in tuple(_FIVE):
        return text
    if len(text) >= 3 and text[0] in _FIVE and text[1:3] == ". ":
        return text[0]
    found = _THE_ANSWER.findall(text)
    return found[0] if len(found) == 1 else ""


def scienceqa_lmms_eval(text: str) -> str:
    """The letter of "b" or "B. a dog"."""
    plain = text.strip()
    if len(plain) == 1:
        return plain.upper()
    return plain[0] if len(plain) >= 2 and plain[0].isupper() and plain[1] == "." else ""


def _by_words(text: str, choices: Mapping[str, str], short: bool) -> str:
    """The only choice whose words are in the answer. short: not in an answer longer than twice all choices."""
    low = text.lower()
    if short and len(low) > 2 * sum(map(len, choices.values())):
        return ""
    found = [choice for choice, words in choices.items() if words.lower() in low]
    return found[0] if len(found) == 1 else ""


def _likeliest(text: str, choices: Sequence[str]) -> str:
    """The letter in the place that most surely names it (start, end, after a phrase, …), of several the last one."""
    if not text.strip():
        return ""
    bare = text.strip()
    for mark in ",.!?;:'\"":
        bare = bare.strip(mark)
    padded, inner = f" {bare} ", bare.strip()
    found: list[tuple[int, int, str]] = []  # rank, place, letter
    for choice in choices:
        for rank, form in ((6, "({})"), (5, "{}."), (4, "{}:"), (3, "{})"), (2, "{} ")):
            if form.format(choice) in padded:
                found.append((rank, padded.rfind(form.format(choice)), choice))
        found += [(7, place, choice) for place in _after_phrases(padded, choice)]
        if inner.startswith(choice) and (len(inner) == 1 or not inner[1].isalpha()):
            found.append((10, 0, choice))
        if inner.endswith(choice) and (len(inner) == 1 or not inner[-2].isalpha()):
            found.append((9, len(padded) - 1, choice))
    found = found or [(0, padded.rfind(choice), choice) for choice in choices if choice in padded]
    return max(found, key=lambda each: each[:2])[2] if found else ""


def _after_phrases(padded: str, choice: str) -> list[int]:
    low = padded.lower()
    starts = [low.find(phrase) + len(phrase) for phrase in _PHRASES if phrase in low]
    return [place for start in starts if (place := padded.find(choice, start)) >= 0]
