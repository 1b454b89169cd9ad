"""The limit of serving: a gRPC service that only gives its request back. ``python -m benchmarks.echo``"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import uvloop

from benchmarks.environment import ROOT
from benchmarks.load import METHOD
from deploy.embedded.member import stop


class _Echo(grpc.GenericRpcHandler):
    """Answers one method."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(_echo) if handler_call_details.method == METHOD else None


async def _echo(request: bytes, context: Any) -> bytes:
    del context
    return request


async def _serve() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"127.0.0.1:{port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


@contextmanager
def echo() -> Iterator[str]:
    """The address of an echo service in a process of its own."""
    popen = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.echo"], cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
    )
    assert popen.stdout is not None
    try:
        with popen.stdout as announced:
            yield announced.readline().decode().strip()
    finally:
        stop(popen)


if __name__ == "__main__":
    uvloop.run(_serve())
