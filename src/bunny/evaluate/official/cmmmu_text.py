"""How CMMMU's script reads free text (CMMMU `eval_utils.py`, which the original Bunny carries unchanged).

In: an answer to a choice (选择), a blank (填空) or a judgement (判断). Out: letters, right or wrong, 对 or 错; empty
where the script would draw at random. Its oddity is kept: 不对 and 不正确 contain 对 and 正确, and are read as 对.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from bunny.evaluate.official.mmmu_text import Value, bare, key_parts, number_in

SENTENCES = re.compile(r"。|\n")
BLANK_CLUES = ("是", "为", "所以", "等于", "方案", "选择", "正确答案", "因此", "最后", "答案", "结果")
JUDGE_CLUES = ("是", "为", "所以", "判断", "陈述", "说法", "表达", "答案", "结果")
POSITIVE = ("正确", "对", "准确", "肯定", "对的")
NEGATIVE = ("不对", "错误", "不正确", "不准确", "不合适", "否定", "错的", "错")
AMBIGUOUS = ("对错", "是否正确", "否正确", "或者", "是否", "正确性", "对不")
NUMBERS = (
    re.compile(r"-?\d{1,3}(?:，\d{3})+"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+)(?![eE][+-]?\d+)(?!，\d)"),
)


def letters(text: str, choices: Mapping[str, str]) -> str:
    """The letters named most often, in order: in brackets, else anywhere, else by the choices' words.

    >>> letters("选(A)和(C)", {"A": "猫", "B": "狗", "C": "鸟", "D": "鱼"})
    'AC'
    """
    said = f" {bare(text)} "
    for forms in ({key: f"({key})" for key in choices}, {key: key for key in choices}, choices):
        counts = {key: said.count(form) for key, form in forms.items()}
        if most := max(counts.values(), default=0):
            return "".join(key for key in choices if counts[key] == most)
    return ""


def judgement(text: str) -> str:
    """对 or 错 by what most parts of the answer say; empty if they balance."""
    parts = set(key_parts(text.strip("。").strip(), SENTENCES, JUDGE_CLUES))
    clear = [part for part in parts if not any(word in part for word in AMBIGUOUS)]
    yes = sum(any(word in part for word in POSITIVE) for part in clear)
    no = sum(not any(w in part for w in POSITIVE) and any(w in part for w in NEGATIVE) for part in clear)
    return "对" if yes > no else "错" if no > yes else ""


def fills(gold: str, text: str, whole: bool = False) -> bool:
    """Whether an answer to a blank holds the gold answer: an equal number (2 places), or its words in a short part.

    whole: the text is the answer itself (`answer` files), not a response to look for one in.
    """
    parts = [text] if whole else key_parts(text.strip("。").strip(), SENTENCES, BLANK_CLUES, last_only="=")
    if not whole:
        parts += [number for part in parts for pattern in NUMBERS for number in pattern.findall(part)]
    wanted = _values(gold, gold)
    words = [value for value in wanted if isinstance(value, str)]
    for value in (value for part in parts for value in _values(part, gold)):
        if any(word in value for word in words) if isinstance(value, str) else value in wanted:
            return True
    return False


def _values(text: str, gold: str) -> list[Value]:
    """The part as a number or as it is; nothing if it is much longer than the gold answer."""
    plain = text.strip()
    number = number_in(plain)
    if number is not None:
        return [number]
    long = len(plain) > len(gold) + 20 or _latin(plain) > _latin(gold) + 2
    return [] if long else [plain]


def _latin(text: str) -> int:
    return sum(letter.isascii() and letter.isalpha() for letter in text)
