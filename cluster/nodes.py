"""Starting Ray on a machine as a node of a cluster: the head, or one that joins it.

It is `ray start`, given what it cannot know: the settings that a cluster of ours needs on each node
(`cluster.node_settings`), and a head that has no processors, so that no engine runs beside what
holds the cluster together.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.environment import loopback_variable, require_short_folder
from cluster.node_settings import NODE_SETTINGS
from cluster.ports import free_port
from cluster.token import TOKEN_FILE, TOKEN_VARIABLES, has_token, token_file
from ztom.errors import ConfigError, EngineError

_LIMIT_S = 120.0
#: The usual one of Ray's client protocol.
_CLIENT_PORT = 10_001


@dataclass(frozen=True, slots=True)
class RayNode:
    """What this machine is to be.

    Attributes:
        address: Address of this machine in the network of the cluster.
        head: Address of the head as ``host:port``; None makes this machine the head.
        port: Port of a head, to which others join.
        dashboard_port: Port of a head's dashboard, which takes jobs.
        cpus: Processors that searches and endpoints may use; None for all, of a head for none.
        gpus: GPUs that they may use; None for all.
        resources: Further resources by name, as in ``{"big-disk": 1}``.
        labels: Labels that work can ask for, as in ``{"pool": "l4"}``.
        object_store_bytes: Size of the shared memory for objects; None leaves it to Ray.
    """

    address: str
    head: str | None = None
    port: int = 6379
    dashboard_port: int = 8265
    cpus: int | None = None
    gpus: int | None = None
    resources: Mapping[str, float] | None = None
    labels: Mapping[str, str] | None = None
    object_store_bytes: int | None = None

    @property
    def command(self) -> list[str]:
        """Arguments of `ray start`."""
        arguments = ["start", f"--node-ip-address={self.address}", "--disable-usage-stats"]
        # any free port: another Ray on the machine has the usual one
        arguments += ["--dashboard-agent-listen-port=0"]
        cpus = self.cpus
        if self.head is None:
            arguments += ["--head", f"--port={self.port}", "--dashboard-host=" + self.address]
            arguments += [f"--dashboard-port={self.dashboard_port}", "--include-dashboard=true"]
            # nothing here speaks Ray's client protocol, and another Ray has its usual port
            arguments += [f"--ray-client-server-port={_client_port(self.address)}"]
            cpus = 0 if cpus is None else cpus
        else:
            arguments += [f"--address={self.head}"]
        for name, value in (
            ("num-cpus", cpus),
            ("num-gpus", self.gpus),
            ("object-store-memory", self.object_store_bytes),
        ):
            if value is not None:
                arguments.append(f"--{name}={value}")
        if self.resources:
            pairs = ", ".join(f'"{name}": {value:g}' for name, value in self.resources.items())
            arguments.append(f"--resources={{{pairs}}}")
        if self.labels:
            pairs = ",".join(f"{name}={value}" for name, value in self.labels.items())
            arguments.append(f"--labels={pairs}")
        return arguments


def start_node(node: RayNode, variables: Mapping[str, str], *, block: bool = False) -> None:
    """Start Ray on this machine as a node.

    Args:
        node: What this machine is to be.
        variables: Environment of Ray and of everything that it starts, on top of
            `NODE_SETTINGS`.
        block: Whether to stay until the node ends, as an init system wants it; an interrupt then
            ends the node.

    Raises:
        ConfigError: There is no token that the nodes of the cluster share.
        EngineError: Ray did not start; the message is its own.
    """
    require_short_folder()
    environment = {**os.environ, **NODE_SETTINGS, **variables}
    environment.pop(loopback_variable(), None)  # other machines have to reach it
    environment.pop("RAY_ADDRESS", None)
    if environment.get("RAY_AUTH_MODE") == "token":
        _require_token(environment, head=node.head is None)
    command = [_ray(), *node.command, *(["--block"] if block else [])]
    if block:
        _stay(command, environment)
        return
    done = _run(command, environment)
    if done.returncode:
        raise EngineError(
            "Ray did not start",
            reason=_last_line(done),
            fix="Its logs are in /tmp/ray/session_latest/logs.",
        )


def _client_port(address: str) -> int:
    """A free port below those that Ray gives its workers."""
    for port in range(_CLIENT_PORT, _CLIENT_PORT - 100, -1):
        with suppress(ConfigError):
            return free_port(address, port)
    return _CLIENT_PORT


def _ray() -> str:
    """The program `ray` of this environment."""
    beside = Path(sys.executable).with_name("ray")
    path = str(beside) if beside.exists() else shutil.which("ray")
    if path is None:
        raise ConfigError("there is no program ray", fix='Install it with: pip install "ray"')
    return path


def _require_token(environment: Mapping[str, str], *, head: bool) -> None:
    """See that there is a token; a head makes one where there is none.

    Raises:
        ConfigError: This machine is to join, and has no token.
    """
    if has_token():
        return
    if not head:
        raise ConfigError(
            "there is no token for the cluster",
            got=f"no {TOKEN_FILE}, and {' and '.join(TOKEN_VARIABLES)} are not set",
            expected="the token of the head",
            fix=f"Copy {TOKEN_FILE} of the head to this machine, readable for its owner only.",
        )
    done = _run([_ray(), "get-auth-token", "--generate"], environment)
    if done.returncode or not token_file().exists():
        raise EngineError("Ray made no token", reason=_last_line(done))
    token_file().chmod(0o600)


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    texts = [line.strip() for line in lines if line.strip()]
    return texts[-1] if texts else f"exit status {done.returncode}"


def _run(
    command: Sequence[str], environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(
            "Ray does not answer",
            got=f"nothing within {_LIMIT_S:g} s",
            fix="Is the head reachable?",
        ) from error


def _stay(command: Sequence[str], environment: Mapping[str, str]) -> None:
    with subprocess.Popen(command, env=dict(environment), stdin=subprocess.DEVNULL) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            return
    if status:
        raise EngineError("the node has ended", got=f"exit status {status}")
