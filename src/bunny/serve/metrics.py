"""What an operator watches, in Prometheus's text: requests, times, tokens, and each engine's own figures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bunny.serve.service import Service

KIND = CONTENT_TYPE_LATEST
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)


class Metrics:
    """The figures of one server, in a registry of its own."""

    def __init__(self, service: Service) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("bunny_http_requests", "Requests answered.", ("path", "status"), registry=self.registry)
        self.seconds = Histogram(
            "bunny_request_seconds",
            "From a request for an answer to its end.",
            ("model",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.first_token = Histogram(
            "bunny_first_token_seconds",
            "From a request for an answer to its first piece.",
            ("model",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.tokens = Counter(
            "bunny_tokens",
            "Tokens: of prompts, of these found again, of answers.",
            ("model", "kind"),
            registry=self.registry,
        )
        self.registry.register(_Engines(service))

    def text(self) -> bytes:
        """All figures."""
        return generate_latest(self.registry)


class _Engines(Collector):
    """What the engines say of themselves at the moment of asking."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("bunny_in_flight", "Requests for answers under way.", self.service.in_flight)
        yield GaugeMetricFamily("bunny_ready", "1: questions are taken.", float(self.service.state == "ok"))
        yield from self._figures()

    def _figures(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for engine in self.service.engines:
            for name, value in engine.figures().items():
                kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
                full = "bunny_engine_" + re.sub(r"[^a-z0-9_]", "_", name.lower())
                family = families.setdefault(full, kind(full, f"The engine's own: {name}.", labels=("model",)))
                family.add_metric([engine.name], value)  # type: ignore[attr-defined]
        yield from families.values()
