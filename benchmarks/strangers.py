"""Strangers with slow bodies: ``python strangers.py HOST PORT COUNT``, until it is ended.

It imports nothing but the standard library: that it starts is not to be noticed.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

TARGETS = (
    ("/api/auth/login", ""),
    ("/api/auth/register", ""),
    ("/project", ""),
    ("/v1/chat/completions", ""),
    ("/project", "Authorization: Bearer nonsense\r\n"),
    ("/v1/chat/completions", "Authorization: Bearer ztom_nonsense\r\n"),
)
#: A stranger who was hung up on comes back after so many seconds.
RETURN_S = 1.0


async def hold(host: str, port: int, number: int) -> None:
    """Hold a connection open with a slow body; open another one when it was closed."""
    path, token = TARGETS[number % len(TARGETS)]
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{token}Content-Length: 100000\r\n"
    head += "Content-Type: application/json\r\n\r\n"
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(host, port)
            with contextlib.closing(writer):
                writer.write(head.encode())
                while not reader.at_eof():
                    writer.write(b" ")
                    await writer.drain()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(reader.read(4096), 1)
        await asyncio.sleep(RETURN_S)


async def main(host: str, port: int, count: int) -> None:
    """Hold so many connections."""
    await asyncio.gather(*(hold(host, port, number) for number in range(count)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
