"""Whether a server answers: ``python -m cluster.health http://ztom-serve-svc:8000 --within 120``.

It is what `helm test` runs. It needs no more than an address, and waits for a server that starts.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Sequence

import httpx

from ztom.errors import EngineTimeoutError

_EVERY_S = 1.0
_ANSWER_S = 10.0


def wait_for_health(
    url: str,
    *,
    within_s: float,
    version: str | None = None,
    transport: httpx.BaseTransport | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Wait until a server says that it is up.

    Args:
        url: Base address of the server.
        within_s: Seconds that it may take.
        version: Version that it has to be of; any when None.
        transport: What carries the requests; the network when None.
        clock: Function that tells the time in seconds.
        sleep: Function that waits for seconds.

    Returns:
        Version that the server says it is of.

    Raises:
        EngineTimeoutError: It did not say so in time; the message has its last answer.
    """
    end, answer = clock() + within_s, "nothing"
    with httpx.Client(transport=transport, timeout=_ANSWER_S) as client:
        while clock() < end:
            with contextlib.suppress(httpx.TransportError):
                response = client.get(f"{url.rstrip('/')}/health")
                answer = f"{response.status_code} {response.text[:200]}"
                if response.status_code == httpx.codes.OK:
                    running = str(response.json()["version"])
                    if version in (None, running):
                        return running
            sleep(_EVERY_S)
    wanted = "a server that is up" if version is None else f"a server of version {version}"
    raise EngineTimeoutError("the server is not up", got=f"{answer} from {url}", expected=wanted)


def argument_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m cluster.health", description=__doc__)
    parser.add_argument("url", help="base address of the server")
    parser.add_argument("--within", type=float, default=120, help="seconds that it may take")
    parser.add_argument("--version", help="version that it has to be of")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Wait, and say what came; returns the exit status."""
    options = argument_parser().parse_args(arguments)
    try:
        running = wait_for_health(options.url, within_s=options.within, version=options.version)
    except EngineTimeoutError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{options.url} is up: version {running}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
