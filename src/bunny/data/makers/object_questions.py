"""Yes/no questions about things, built so that a model that cannot see learns nothing from them.

In: pairs whose words are known. Out: single-turn conversations `{id}/q1`, `{id}/q2`, … that share their picture.
Every word is asked exactly as often with the answer yes as with no, in the same wording (the idea of POPE's balanced
sets, Li et al. 2023). A yes for which no picture could fairly be answered no is left out.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence

import numpy as np
from pydantic import Field

from bunny.core.types import Sample
from bunny.data.makers._prompts import article, ask
from bunny.data.makers._words import Named, WordMaker

Asked = tuple[str, str, int]
"""word, answer, number of the wording"""


class ObjectQuestions(WordMaker):
    """`{use: object_questions, words: words.yaml}`"""

    yes_per_picture: int = Field(
        2, gt=0, description="words of a picture that are asked for; as many others on average"
    )
    per_word: int | None = Field(None, gt=0, description="yes questions about one word at most; default: no limit")
    questions: tuple[str, ...] = (
        "Is there {a} {word} in the picture?",
    )  # {a}: "a" or "an"; one is drawn for each pair
    suffix: str = ""  # appended to the question; as in evaluation
    yes: str = "yes"
    no: str = "no"

    def make(self, samples: Sequence[Sample], rng: np.random.Generator) -> Iterator[Sample]:
        """Balanced questions, by picture in the order of the samples. Raises UserError if no words are known."""
        named = self.name_all(samples)
        for at, asked in enumerate(self._plan(named, rng)):
            for number, turn in enumerate(rng.permutation(len(asked)), start=1):
                word, answer, wording = asked[turn]
                question = self.questions[wording].replace("{a}", article(word)).replace("{word}", word) + self.suffix
                sample = named.samples[at]
                yield ask(sample, f"{sample.id}/q{number}", question, answer, "object_questions")

    def _plan(self, named: Named, rng: np.random.Generator) -> list[list[Asked]]:
        """What is asked about each picture."""
        plan: list[list[Asked]] = [[] for _ in named.samples]
        yes = [
            (at, word)
            for at, words in enumerate(named.words)
            for word in rng.permutation(list(dict.fromkeys(words)))[: self.yes_per_picture].tolist()
        ]
        queue = deque(rng.permutation(len(plan)).tolist())  # pictures, the one asked longest ago first
        taken: set[tuple[int, str]] = set()
        times: Counter[str] = Counter()
        for at, word in (yes[turn] for turn in rng.permutation(len(yes))):
            other = next((o for o in queue if (o, word) not in taken and named.fair(word, o)), None)
            if other is None or times[word] == self.per_word:
                continue
            times[word] += 1
            queue.remove(other)
            queue.append(other)
            taken.add((other, word))
            wording = int(rng.integers(len(self.questions)))
            plan[at].append((word, self.yes, wording))
            plan[other].append((word, self.no, wording))
        return plan


USE = ObjectQuestions
