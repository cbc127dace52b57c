"""CMMMU's three kinds of question: how each is asked, and what an answer in the asked form looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bunny.core.types import Question
from bunny.evaluate.parse import normalise

CHOICE, JUDGE, BLANK = "选择", "判断", "填空"
CATEGORIES = {
    "艺术与设计": "Art & Design",
    "商业": "Business",
    "科学": "Science",
    "健康与医学": "Health & Medicine",
    "人文社会科学": "Humanities & Social Sciences",
    "技术与工程": "Technology & Engineering",
}
TASKS = {
    CHOICE: (
        "请回答以下多项选择题，并选出正确选项。这些题目可能包括单选和多选题型。如果所提供的信息不足以确定一个明确的答案，"
        "那么请根据可用的数据和你的判断来选择最可能正确的选项。"
    ),
    JUDGE: (
        "请回答以下判断题，并根据题目描述和所给的信息来判断问题中陈述的对错。如果信息不完整或不足以作出绝对判断，"
        "请运用你的逻辑推理和现有信息来做出最可能的判断。"
    ),
    BLANK: (
        "请回答以下填空题，并根据题目的要求和所提供的信息来给出最恰当的答案。如果信息不足以确切回答，"
        "那么请依据现有的数据和你的推理能力来填写最合理的答案。"
    ),
}


def prompt(kind: str, text: str, choices: Mapping[str, str]) -> str:
    """The original's prompt: the task in words, the question, its choices, and where the answer goes."""
    listed = "选项：\n" + "".join(f"({letter}) {words}\n" for letter, words in choices.items()) + "\n"
    return f"{TASKS[kind]}\n\n问题：{text}\n{listed if kind == CHOICE else ''}正确答案：\n"


def among(question: Question, said: str, profile: str) -> Sequence[str]:
    """What the script draws from. An empty answer to a choice is wrong without a draw; lmms-eval draws there too."""
    if question.meta["as_is"] or (question.meta["kind"] == CHOICE and not said and profile != "lmms_eval"):
        return ()
    return {CHOICE: list("ABCD"), JUDGE: ["对", "错"]}.get(question.meta["kind"], ())


def draw_order(questions: Sequence[Question], answered: Sequence[int], profile: str) -> list[int]:
    """The answered rows in the order in which the script comes to them.

    CMMMU's script: category after category, within one in the order of the answers file (`bunny`) or of the question
    file. lmms-eval reads all choices while it goes through the question file, and judges only when it adds up, subject
    after subject as they first came.
    """
    by_place = sorted(answered, key=lambda row: int(questions[row].meta["place"]))
    if profile == "lmms_eval":
        subjects: dict[str, int] = {}
        for row in by_place:
            subjects.setdefault(str(questions[row].meta["subject"]), len(subjects))
        judged = [row for row in by_place if questions[row].meta["kind"] == JUDGE]
        judged.sort(key=lambda row: subjects[str(questions[row].meta["subject"])])
        return [row for row in by_place if questions[row].meta["kind"] == CHOICE] + judged
    rank = {category: number for number, category in enumerate(CATEGORIES)}
    rows = answered if profile == "bunny" else by_place
    return sorted(rows, key=lambda row: rank.get(questions[row].meta["category"], len(rank)))


def strictly(kind: str, text: str) -> str:
    """Letters alone, 对 or 错 alone, or the text of a blank; empty where the answer is none of it."""
    plain = normalise(text)
    if kind == CHOICE:
        named = "".join(sorted(set(plain.replace(" ", "").upper())))
        return named if named and set(named) <= set("ABCD") else ""
    if kind == JUDGE:
        return (
            "对"
            if plain in ("对", "正确", "对的")
            else "错"
            if plain in ("错", "错误", "不对", "不正确", "错的")
            else ""
        )
    return text.strip()
