"""What a gateway and a replica say to each other: plain values that travel between processes.

A gateway calls ``ask`` or ``stream`` of a deployment's handle with a `Call`. Nothing here knows of
vLLM or of Ray, so a gateway can be tested with replicas that are a few lines long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serve_apps.variants.request_fields import Kind
from serve_apps.variants.request_size import DEFAULT_LIMITS, RequestLimits


@dataclass(frozen=True, slots=True)
class Call:
    """One request of a client, on its way to a replica.

    Attributes:
        kind: Which of OpenAI's endpoints was called.
        body: The client's JSON body, parsed and otherwise as it came; its ``model`` is ignored.
        digest: Hex sha256 of the variant that is wanted.
        request_id: Becomes the tail of OpenAI's id (``chatcmpl-<request_id>``).
        folder: Folder of the variant; needed for an adapter that was not loaded yet.
        name: Model name of the variant, under which it answers; that of its folder when None.
        exact: Whether to refuse (503, code ``other_version``) rather than answer with another
            variant. A replica with one full-weight variant answers with that one otherwise, and
            says so; adapters are always the ones that were asked for.
        trace: Headers of the trace that the request belongs to; empty where it belongs to none.
        limits: What the operator lets one request ask for.
    """

    kind: Kind
    body: dict[str, Any]
    digest: str
    request_id: str
    folder: str | None = None
    name: str | None = None
    exact: bool = False
    trace: Mapping[str, str] = field(default_factory=dict)
    limits: RequestLimits = DEFAULT_LIMITS


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer, or a refusal in OpenAI's form.

    Attributes:
        status: HTTP status of the answer.
        body: Bytes of the JSON body.
        variant: ``name@<first 12 of digest>`` of the variant that answered.
        digest: Lower-case hex sha256 of the variant's manifest, in full.
        prompt_tokens: Tokens of all prompts; 0 in a refusal.
        completion_tokens: Tokens that were generated; 0 in a refusal.
        empty: The status is 200 and some choice has no text.
        code: OpenAI's code of a refusal, such as ``other_version``; None in an answer.
        engine_s: Seconds of the engine's work that were its share.
    """

    status: int
    body: bytes
    variant: str
    digest: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    empty: bool = False
    code: str | None = None
    engine_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Opened:
    """The first item of a stream that was accepted.

    Attributes:
        variant: ``name@<first 12 of digest>`` of the variant that answers.
        digest: Lower-case hex sha256 of the variant's manifest, in full.
    """

    variant: str
    digest: str


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The last item of a stream that was accepted.

    Attributes:
        prompt_tokens: Tokens of all prompts.
        completion_tokens: Tokens that were generated.
        empty: Some choice has no text.
        failed: The stream broke off; its events said so to the client, the counts are not known.
        engine_s: Seconds of the engine's work that were its share.
    """

    prompt_tokens: int
    completion_tokens: int
    empty: bool
    failed: bool = False
    engine_s: float = 0.0


StreamItem = Answer | Opened | str | StreamEnd


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """What a replica holds and does.

    Attributes:
        pid: Id of the replica's process.
        digests: The variants it can answer for without being told a folder.
        running: Number of sequences that are being generated.
        waiting: Number of sequences that wait to be scheduled.
        generated_tokens: Number of tokens generated since the start.
        steps: Number of scheduler steps since the start; with work in hand they stand still only
            when the engine does.
        memory_bytes: Memory of the replica with its engine, bytes: on the CPU what is resident, of
            all its processes; on a GPU what is allocated there.
        replica: Name that no other replica has.
        load_s: Seconds that it took to load.
        up_s: Seconds since then.
        busy_s: Seconds for which it had work since then.
        untold_s: Part of these of which no gateway was told: who asked had gone.
    """

    pid: int
    digests: tuple[str, ...]
    running: int
    waiting: int
    generated_tokens: int
    steps: int
    memory_bytes: int
    replica: str = ""
    load_s: float = 0.0
    up_s: float = 0.0
    busy_s: float = 0.0
    untold_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SwapReport:
    """What a live swap took.

    Attributes:
        digest: Digest of the variant that answers now.
        seconds: Seconds from when the last running request had ended to when new ones were let in.
        waited_s: Seconds until the running requests had ended.
    """

    digest: str
    seconds: float
    waited_s: float
