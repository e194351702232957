"""What Prometheus sees of the gateway, through Ray's own exporter: by alias, variant, role, status.

The series and their labels are listed in ``docs/serving.md``; the Grafana dashboard
``cluster/monitoring/grafana/serving.json`` draws them.

Ray has no way to unset a series. A gauge that is not said again leaves by itself: its process hands
what was said to the node's agent once, and the agent shows it for two export periods more
(``metrics_report_interval_ms``, 10 s each). So gauges are said again and again, but not those that
have come to zero. Counters and histograms stay as long as the agent runs, also those of variants
that are retired.
"""

from __future__ import annotations

import asyncio

from ray.util.metrics import Counter, Gauge, Histogram

from ztom.rollout.routing import Choice, variant_id

_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300]
_FRESH_S = 5.0
_WHO = ("alias", "variant", "role")


class GatewayMetrics:
    """Counters and histograms of one gateway process."""

    def __init__(self) -> None:
        who = _WHO
        self._requests = Counter(
            "ztom_requests",
            description="Number of requests answered; a client that left is status 499.",
            tag_keys=(*who, "status"),
        )
        self._tokens = Counter(
            "ztom_tokens",
            description="Number of tokens in prompts and in answers.",
            tag_keys=(*who, "kind"),
        )
        self._first = Histogram(
            "ztom_time_to_first_token_seconds",
            description="Seconds from the request to the first piece of a stream.",
            boundaries=_SECONDS,
            tag_keys=who,
        )
        self._between = Histogram(
            "ztom_inter_token_seconds",
            description="Mean seconds between two tokens of a stream.",
            boundaries=[0.001, 0.0025, *_SECONDS],
            tag_keys=who,
        )
        self._latency = Histogram(
            "ztom_request_seconds",
            description="Seconds from the request to the end of its answer.",
            boundaries=_SECONDS,
            tag_keys=who,
        )
        self._ongoing = Gauge(
            "ztom_ongoing_requests", description="Number of requests being answered.", tag_keys=who
        )
        self._refused = Counter(
            "ztom_refused_requests",
            description="Number of requests that reached no variant.",
            tag_keys=("status",),
        )
        self._mirrored = Counter(
            "ztom_mirrored_requests",
            description="Number of copies for shadows: answered, failed, or dropped as too many.",
            tag_keys=("variant", "outcome"),
        )
        self._table = Gauge(
            "ztom_routing_version", description="Version number of the routing table in use."
        )
        #: Of those who have requests in work.
        self._counts: dict[tuple[str, ...], int] = {}
        self._version = 0

    def began(self, choice: Choice) -> None:
        """A request goes to its variant."""
        self._count(choice, 1)

    def ended(
        self,
        choice: Choice,
        *,
        status: int,
        seconds: float,
        first_s: float | None = None,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
    ) -> None:
        """A request was answered.

        Args:
            choice: Variant that answered, as it was routed.
            status: HTTP status of the answer.
            seconds: Seconds from the request to the end of the answer.
            first_s: Seconds from the request to the first piece of a stream; None without one.
            prompt_tokens: Number of tokens of the prompt.
            completion_tokens: Number of tokens of the answer.
        """
        tags = _tags(choice)
        self._count(choice, -1)
        self._requests.inc(1, {**tags, "status": str(status)})
        self._latency.observe(seconds, tags)
        if prompt_tokens:
            self._tokens.inc(prompt_tokens, {**tags, "kind": "prompt"})
        if completion_tokens:
            self._tokens.inc(completion_tokens, {**tags, "kind": "completion"})
        if first_s is not None:
            self._first.observe(first_s, tags)
            if completion_tokens > 1:
                self._between.observe((seconds - first_s) / (completion_tokens - 1), tags)

    def refused(self, status: int) -> None:
        """A request went to no variant."""
        self._refused.inc(1, {"status": str(status)})

    def mirrored(self, variant: str, outcome: str) -> None:
        """A copy for a shadow: ``answered``, ``failed`` or ``dropped``."""
        self._mirrored.inc(1, {"variant": variant, "outcome": outcome})

    def table(self, version: int) -> None:
        """Take note of the version of the table that is in use."""
        self._version = version
        self._table.set(version)

    async def keep_fresh(self) -> None:
        """Say gauges again, until cancelled; those at zero were said once, and may leave."""
        while True:
            await asyncio.sleep(_FRESH_S)
            self._table.set(self._version)
            for key, count in self._counts.items():
                self._ongoing.set(count, dict(zip(_WHO, key, strict=True)))

    def _count(self, choice: Choice, change: int) -> None:
        tags = _tags(choice)
        key = tuple(tags.values())
        count = self._counts.pop(key, 0) + change
        if count:
            self._counts[key] = count
        self._ongoing.set(count, tags)


def _tags(choice: Choice) -> dict[str, str]:
    return {
        "alias": choice.alias or "",
        "variant": variant_id(choice.placement.name, choice.digest),
        "role": choice.role,
    }
