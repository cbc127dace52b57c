"""Short answers as VQAv2, TextVQA and VizWiz compare them, and the soft accuracy against ten people's answers.

In: any text. Out: its normal form. Three scripts differ in small ways that move scores by points:
`vqa_eval` is VQAEval of GT-Vision-Lab/VQA; `evalai` is EvalAI's processor as Pythia's M4C and the original Bunny use
it (before VQAEval sees the answer); `vlmevalkit` has VQAEval's rules with the period rule mended.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MARKS = ';/[]"{}()=+\\_-><@`,?!'
_TEN = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {"none": "0", **{word: str(number) for number, word in enumerate(_TEN)}}
ARTICLES = frozenset({"a", "an", "the"})

COMMA = re.compile(r"(\d)(,)(\d)")
COMMAS = re.compile(r"(?<=\d)(,)+(?=\d)")
PERIOD = re.compile(r"(?!<=\d)(\.)(?!\d)")  # meant as a look-behind; as written it only looks ahead
PERIOD_MENDED = re.compile(r"(?<!\d)\.(?!\d)")
_PERIODS = 32  # the scripts pass `re.UNICODE` where the number of replacements belongs

_SIMPLE = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's I'm I've
isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't
somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's they'd
they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd
who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
_DOUBLE = """
couldn't've hadn't've he'd've I'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've
something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'll you'd've
"""
_ODD = {
    **dict.fromkeys(("ow's'at", "'ows'at", "'ow'sat"), "'ow's'at"),
    **dict.fromkeys(("yall'd've", "y'alld've", "y'all'dve"), "y'all'd've"),
    "somebody'd": "somebodyd",
}


def _contractions() -> dict[str, str]:
    """Spelling without one or all of its apostrophes -> the spelling with them."""
    table = {word.replace("'", ""): word for word in _SIMPLE.split()}
    for word in _DOUBLE.split():
        first, second = (place for place, letter in enumerate(word) if letter == "'")
        table[word[:first] + word[first + 1 :]] = table[word[:second] + word[second + 1 :]] = word
    return table | _ODD


CONTRACTIONS = _contractions()


def vqa_eval(text: str) -> str:
    """VQAEval's normal form.

    >>> vqa_eval("The two Dogs."), vqa_eval("1,000")
    ('2 dogs', '1000')
    """
    return _words(without_marks(_one_line(text), COMMA, PERIOD))


def evalai(text: str) -> str:
    """EvalAI's normal form; it also sets off the possessive 's.

    >>> evalai("McDonald's!"), evalai("t-shirt")
    ("mcdonald 's", 't shirt')
    """
    lowered = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return _words(without_marks(_one_line(lowered), COMMAS, PERIOD))


def vlmevalkit(text: str) -> str:
    """VLMEvalKit's normal form: a full stop after a digit stays."""
    return _words(without_marks(_one_line(text), COMMA, PERIOD_MENDED))


def soft_accuracy(people: Sequence[str], said: str) -> float:
    """Credit of an answer, averaged over leaving out one person at a time: a third per person who agrees, at most 1.

    people: normalised answers (ten, as a rule); said: the normalised answer. Nobody's answers give 0.
    """
    agree = sum(answer == said for answer in people)
    credits = [min(1.0, (agree - (answer == said)) / 3) for answer in people]
    return sum(credits) / len(credits) if credits else 0.0


def vqa_eval_accuracy(people: Sequence[str], said: str) -> float:
    """`soft_accuracy` as VQAEval computes it: nothing is normalised if all people gave the same answer."""
    plain = [_one_line(answer) for answer in people]
    if len(set(plain)) > 1:
        return soft_accuracy([vqa_eval(answer) for answer in plain], vqa_eval(said))
    return soft_accuracy(plain, _one_line(said))


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def without_marks(text: str, comma: re.Pattern[str], period: re.Pattern[str]) -> str:
    """Marks taken out: replaced by nothing beside a space or if the text holds 1,000, else by a space."""
    out, number = text, comma.search(text) is not None
    for mark in MARKS:
        out = out.replace(mark, "" if number or f"{mark} " in text or f" {mark}" in text else " ")
    return period.sub("", out, count=_PERIODS)


def _words(text: str) -> str:
    """Lower case, number words as digits, no articles, apostrophes put back."""
    numbered = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in numbered if word not in ARTICLES)
