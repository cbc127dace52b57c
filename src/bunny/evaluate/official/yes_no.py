"""What counts as yes and as no in POPE, MME and the public evaluation kits.

In: any text. Out: "yes", "no" or "" (neither). They disagree about answers such as "No.", "None", "I cannot tell" and
"Answer: yes", which is where their scores part.
"""

from __future__ import annotations

from bunny.evaluate.official.vqa_text import COMMA, PERIOD_MENDED, without_marks


def pope(text: str) -> str:
    """POPE's own script: no if the first sentence has one of the words No, not, no; everything else is yes.

    >>> pope("No, there is none."), pope("NO"), pope("")
    ('no', 'yes', 'yes')
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def mme(text: str) -> str:
    """MME's own script: yes, else no, if it is within the first four characters.

    >>> mme("No, it is not."), mme("None"), mme("Answer: yes")
    ('no', 'no', '')
    """
    start = text.lower()[:4]
    return "yes" if "yes" in start else "no" if "no" in start else ""


def mme_lmms_eval(text: str) -> str:
    """lmms-eval's MME rule: as `mme`, without surrounding space and full stops, and y or n alone count."""
    plain = text.lower().strip().replace(".", "")
    return {"y": "yes", "n": "no"}.get(plain, "") if len(plain) == 1 else mme(plain)


def exactly(text: str) -> str:
    """lmms-eval's POPE rule: the whole answer must be yes or no."""
    plain = text.lower().strip()
    return plain if plain in ("yes", "no") else ""


def one_of_both(text: str) -> str:
    """VLMEvalKit's rule: one of the words yes and no occurs, the other does not."""
    words = set(without_marks(text.lower(), COMMA, PERIOD_MENDED).split())
    found = {"yes", "no"} & words
    return found.pop() if len(found) == 1 else ""
