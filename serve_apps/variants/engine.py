"""The engine of a replica: one model on vLLM, proved, watched, blended anew, lent adapters.

An engine can have several faces: the variants that its weights are one after the other, or the
adapters that it holds. It knows nothing of HTTP and of Ray, and lets every request in: which face
answers, and when, is decided in `serve_apps.variants.replica`. vLLM itself is in
`serve_apps.variants.vllm_server`, which is imported when an engine starts.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import pickle
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any

from serve_apps.variants.adapter_tokenizer import require_shared_tokenizer
from serve_apps.variants.child_output import ChildOutput, watched_stderr
from serve_apps.variants.events import EventStream
from serve_apps.variants.identity import ModelIdentity
from serve_apps.variants.load import EngineLoad
from serve_apps.variants.memory import resident_bytes
from serve_apps.variants.options import engine_options
from serve_apps.variants.proof import (
    Ask,
    PlainRequest,
    plain_request,
    prove,
    prove_plain,
    warm_up,
)
from serve_apps.variants.request_fields import Kind
from serve_apps.variants.wire import Reply
from ztom.blending.chain import Chain
from ztom.engines.collector import collection_paused, import_paused
from ztom.engines.log_targets import log_targets_kept
from ztom.engines.model_fit import check_adapter_fit, check_chain_fit, check_folder_fit
from ztom.engines.shards import ShardNeed, placed_together
from ztom.errors import BlendError, EngineError, EngineTimeoutError, VariantError
from ztom.rollout.options import ServingArgs

if TYPE_CHECKING:
    from serve_apps.variants.vllm_server import Face, VllmServer
    from ztom.blending.groups import GroupedFactors

logger = logging.getLogger(__name__)


class VariantEngine:
    """One engine. Make it with `start`.

    Attributes:
        home: Face of the model that it was started on.
    """

    def __init__(
        self,
        server: VllmServer,
        output: ChildOutput,
        *,
        args: ServingArgs,
        identity: ModelIdentity,
        on_gpu: bool,
    ) -> None:
        self._args = args
        self._output = output
        self._server = server
        self._on_gpu = on_gpu
        self._steps_at_check = -1
        self._device_bytes = 0
        self.home = self.face(identity)

    @classmethod
    @log_targets_kept()
    def start(cls, args: ServingArgs, identity: ModelIdentity, *, on_gpu: bool) -> VariantEngine:
        """Load a model. Blocks while it loads; call it inside a running event loop.

        Args:
            args: How to run it; of which kind they are decides on swapping and adapters.
            identity: Identity of the model.
            on_gpu: Whether there is a GPU for it.

        Raises:
            EngineError: vLLM refuses the model or the options, with its reason, or the tensors do
                not fit the model.
            CheckpointError: The folder holds no model.
        """
        check_folder_fit(identity.folder)
        import_paused("serve_apps.variants.vllm_server")
        from serve_apps.variants.vllm_server import VllmServer

        options = engine_options(args, identity, on_gpu=on_gpu)
        try:
            with watched_stderr() as output, collection_paused():
                server = VllmServer(options, tool_parser=args.tool_parser)
        except Exception as error:
            cause = output.root_cause() if "root cause" in str(error) else None
            raise EngineError(
                "the engine does not start on this variant",
                reason=cause or _in_a_line(error),
                fix="The log of the replica has the engine's own messages. Too little memory is a "
                "usual cause: try a smaller kv_cache_gib or max_model_len.",
            ) from error
        return cls(server, output, args=args, identity=identity, on_gpu=on_gpu)

    @property
    def load(self) -> EngineLoad:
        """What the engine has done and has in hand."""
        return self._server.load

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together."""
        return self._server.max_model_len

    @property
    def stream_interval_s(self) -> float:
        """Least seconds between two pieces of a stream."""
        return self._args.stream_interval_ms / 1000

    @property
    def has_chat_template(self) -> bool:
        """Whether the model's tokenizer brings a chat template."""
        return self._server.has_chat_template

    @property
    def tool_parser(self) -> str | None:
        """Name of the parser that reads calls of tools out of answers; None without one."""
        return self._server.tool_parser

    @property
    def embeds(self) -> bool:
        """Whether the model gives embeddings, and no text."""
        return self._server.embeds

    def face(self, identity: ModelIdentity, *, adapter_number: int | None = None) -> Face:
        """A face for a variant; see `VllmServer.face`."""
        return self._server.face(identity, adapter_number=adapter_number)

    async def answer(
        self,
        kind: Kind,
        body: Mapping[str, Any],
        *,
        face: Face | None = None,
        request_id: str | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> Reply | EventStream:
        """Answer one request: a reply, or a stream of server-sent events when it asked for one.

        Cancelling the call, or closing the stream, aborts the generation. Nothing but cancellation
        is raised: every failure is a reply with its status.

        Args:
            kind: Which of OpenAI's endpoints was called.
            body: Body that `check_request` has checked; its ``model`` does not matter.
            face: Face that answers; `home` when not given.
            request_id: Tail of the answer's id; random when not given.
            trace: Headers of the trace that the request belongs to, for vLLM's own spans.
        """
        return await self._server.answer(
            kind, body, face=face or self.home, request_id=request_id, trace=trace
        )

    async def prove(self, face: Face | None = None) -> None:
        """Answer for real, once plainly and once through the chat template.

        Raises:
            VariantError: An answer is refused, empty, or its log-probability is not a number.
            EngineError: The engine ended, with its reason.
            EngineTimeoutError: No answer came within ``load_timeout_s``.
        """
        await self._in_time(prove(self._asking(face), self._plain, chat=self.has_chat_template))

    async def prove_one_token(self, face: Face) -> None:
        """The first half of `prove`, for weights that came into an engine that was proved.

        Raises:
            VariantError: The variant does not answer; see `prove`.
            EngineTimeoutError: The answer does not come in time; see `prove`.
        """
        await self._in_time(prove_plain(self._asking(face), self._plain))

    async def warm_up(self) -> None:
        """Generate a few answers at once, so that no client has to wait for first times.

        Raises:
            VariantError: An answer is refused or empty.
            EngineTimeoutError: They did not come within ``load_timeout_s``.
        """
        await self._in_time(
            warm_up(self.answer, longest=self.max_model_len // 2, embeds=self.embeds)
        )

    async def check_health(self) -> None:
        """Pass when the engine has stepped since the last check, or else generates a token.

        Raises:
            EngineError: The engine is dead.
            EngineTimeoutError: It is alive and does nothing.
        """
        if self._server.is_dead:
            raise EngineError("the engine is dead", fix="The replica is started again.")
        if self.load.steps == self._steps_at_check:
            await self._generate_one_token()
        self._steps_at_check = self.load.steps

    async def hold(self, chain: Chain, dtype: str) -> str:
        """Have the workers hold a chain, to `blend` from; returns where they placed it.

        Args:
            chain: Chain that was opened and checked.
            dtype: Dtype that blends are cast to, as a recipe says it. Loading a blend is then
                loading the file that such a recipe writes, whatever dtype the engine computes in.

        Raises:
            EngineError: It cannot be held, with the reason, or its blends do not fit the model.
        """
        await asyncio.to_thread(check_chain_fit, self.home.identity.folder, chain)
        pickled = pickle.dumps(chain)
        needs = await self._rpc("ztom_need", pickled)
        with placed_together([ShardNeed(**need) for need in needs]) as placement:
            await self._rpc("ztom_hold_as", pickled, dtype, placement)
        return placement

    async def blend(self, factors: GroupedFactors, *, instead: GroupedFactors) -> None:
        """Replace the weights by a blend of the chain that is held. Nothing may be generating.

        Args:
            factors: Scaling factors of the blend, with their groups.
            instead: Those of the blend to take should this one fail half-way.

        Raises:
            BlendError: It failed. The weights are a mixture of the two, and `restore` mends them.
            EngineError: It failed in a way that leaves no usable weights.
        """
        failures = await self._rpc(
            "ztom_try_blend", factors.model_dump_json(), instead.model_dump_json()
        )
        if failed := [failure for failure in failures if failure]:
            raise BlendError("the variant cannot be blended", got=failed[0])

    async def restore(self, factors: GroupedFactors) -> None:
        """Replace the weights by a blend that is known to be good.

        Raises:
            EngineError: It failed: there are no usable weights.
        """
        await self._rpc("ztom_blend_grouped", factors.model_dump_json())

    async def forget_prefixes(self) -> None:
        """Empty the prefix cache. Entries are salted by variant, so this gives memory back only."""
        if not await self._server.forget_prefixes():
            logger.warning("the prefix cache could not be emptied")

    async def load_adapter(self, face: Face) -> None:
        """Read an adapter into the engine's memory.

        Raises:
            AdapterUnsupportedError: It adapts modules that the base does not have.
            VariantError: It was trained with another tokenizer.
            EngineError: vLLM refuses it, with its reason.
        """
        adapter, base = face.identity.folder, self.home.identity.folder
        await asyncio.to_thread(check_adapter_fit, adapter, base)
        await asyncio.to_thread(require_shared_tokenizer, adapter, base)
        try:
            await self._server.add_adapter(face)
        except Exception as error:
            raise EngineError(
                f"the engine does not load the adapter {face.identity.pinned}",
                reason=_in_a_line(error),
            ) from error

    async def remove_adapter(self, face: Face) -> None:
        """Remove an adapter from the engine's memory. No request may be using it.

        Raises:
            EngineError: The engine is dead.
        """
        try:
            await self._server.remove_adapter(face)
        except Exception as error:
            raise EngineError(
                f"the engine does not remove the adapter {face.identity.pinned}",
                reason=_in_a_line(error),
            ) from error

    async def memory_bytes(self) -> int:
        """Bytes that are resident, of all processes, on the CPU; on a GPU those allocated there.

        An engine that is busy for a second gives what it gave last.
        """
        if not self._on_gpu:
            return await asyncio.to_thread(resident_bytes)
        try:
            async with asyncio.timeout(1.0):
                self._device_bytes = sum(await self._rpc("ztom_device_bytes"))
        except TimeoutError:
            pass
        return self._device_bytes

    def stop(self) -> None:
        """End the engine and its processes. Requests in work fail."""
        self._server.stop()

    async def _rpc(self, method: str, *arguments: object) -> list[Any]:
        task = method.removeprefix("ztom_")
        limit_s = self._args.load_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await self._server.call_workers(method, *arguments)
        except TimeoutError as error:
            raise EngineTimeoutError(
                f"the engine's workers do not come back from {task}", got=f"{limit_s:g} s"
            ) from error
        except Exception as error:
            raise EngineError(
                f"the engine's workers fail in {task}",
                reason=_in_a_line(error),
            ) from error

    @property
    def _plain(self) -> PlainRequest:
        return plain_request(embeds=self.embeds)

    def _asking(self, face: Face | None) -> Ask:
        return functools.partial(self.answer, face=face)

    async def _in_time(self, check: Awaitable[object]) -> None:
        try:
            async with asyncio.timeout(self._args.load_timeout_s):
                await check
        except VariantError as error:
            if not self._server.is_dead:
                raise
            raise EngineError(
                "the engine cannot run this variant: it ended at the first requests",
                reason=self._output.root_cause(),
                fix="The log of the replica has the engine's own messages.",
            ) from error
        except TimeoutError as error:
            raise EngineTimeoutError(
                "the loaded variant does not answer",
                got=f"nothing within {self._args.load_timeout_s:g} s",
                fix="A chat template that never ends is one cause; load_timeout_s is the other.",
            ) from error

    async def _generate_one_token(self) -> None:
        limit_s = self._args.health_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                reply = await self.answer(self._plain.kind, self._plain.body)
        except TimeoutError as error:
            raise EngineTimeoutError(
                "the engine makes no progress", got=f"no token within {limit_s:g} s"
            ) from error
        if isinstance(reply, Reply) and reply.status != 200:
            raise EngineError("the engine does not answer", reason=reply.body["error"]["message"])


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
