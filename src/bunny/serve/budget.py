"""Memory that all requests share: each takes what it holds, and gives it back at its end."""

from __future__ import annotations

from bunny.serve.failures import ApiError


class Budget:
    """So many bytes for all. Used from one thread (the event loop's)."""

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, 0


class Share:
    """What one request holds.

    >>> budget = Budget(10)
    >>> with Share(budget) as share:
    ...     share.take(8)
    ...     budget.taken
    8
    >>> budget.taken
    0
    """

    def __init__(self, budget: Budget) -> None:
        self.budget, self.held = budget, 0

    def take(self, count: int) -> None:
        """Hold so many bytes more. Raises ApiError 429 if the others hold too much."""
        if self.budget.taken + count > self.budget.most:
            raise ApiError(429, "the server holds too many pictures now", code="memory", retry_after_seconds=2)
        self.budget.taken += count
        self.held += count

    def give(self, count: int) -> None:
        """Hold so many bytes less."""
        self.budget.taken -= count
        self.held -= count

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *_: object) -> None:
        self.give(self.held)
