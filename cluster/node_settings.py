"""What the processes of every node of a cluster have to find in their environment.

Ray and Serve read these when they start, on each node for itself; whoever starts a server later can
only look. `cluster.nodes` sets them for nodes that are started here, images and charts for theirs,
and ``ztom doctor --cluster`` names those that are missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

#: A node that is silent is taken for dead after about `LONGEST_SILENCE_S`, by what the head is told
#: here. Ray's own settings take more than a minute for it.
HEALTH_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "4000",
        "RAY_health_check_failure_threshold": "4",
    }
)
#: Seconds of silence: each check that is not answered takes its time-out and the pause before the
#: next, and so many have to fail in a row.
LONGEST_SILENCE_S = 4 * (4 + 1)

#: What makes doors on all nodes keep the server's deadlines.
SERVE_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        # one event loop and gRPC between gateway and replicas: a fifth of the time of a call
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # which would keep a thousand lines of the log back
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_apps.control_plane.flow.middlewares",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        # a front door that died is missed after three of these, and opened again
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        # Serve kills a front door that starts slower than this, and a busy machine takes its time
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        # longer than a leaving server answers what it has in work
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "30",
        # uvicorn would take whatever stands first in X-Forwarded-For
        "FORWARDED_ALLOW_IPS": "",
    }
)
#: Whoever calls Ray, or a replica's own port, has to know the token.
TOKEN_SETTINGS: Mapping[str, str] = MappingProxyType({"RAY_AUTH_MODE": "token"})

#: The program that a door starts as HAProxy; without it a door has none of the deadlines.
HAPROXY_PROGRAM = "RAY_SERVE_HAPROXY_BINARY_PATH"

#: The same on every node, whatever runs there.
NODE_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        **TOKEN_SETTINGS,
        **HEALTH_SETTINGS,
        **SERVE_SETTINGS,
        "RAY_USAGE_STATS_ENABLED": "0",
        # engines and error functions take turns, and may have all cores
        "OMP_WAIT_POLICY": "PASSIVE",
    }
)

#: What goes wrong without the settings that a server's promises hang on.
WITHOUT: Mapping[str, str] = MappingProxyType(
    {
        "RAY_SERVE_ENABLE_HA_PROXY": "doors keep no deadlines",
        HAPROXY_PROGRAM: "doors keep no deadlines",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "calls from a door to a variant take five times as long",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "a slow body holds a place of a door",
        "RAY_AUTH_MODE": "whoever reaches a port of Ray commands the cluster",
        "RAY_health_check_period_ms": "a node that is cut off is missed after a minute",
    }
)


def missing_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """What a process of a node lacks, and what goes wrong without it, by name.

    Args:
        environment: Environment of a process that Ray has started on the node.
    """
    missing = {}
    for name, harm in WITHOUT.items():
        wanted = NODE_SETTINGS.get(name)
        value = environment.get(name)
        if value is None or (wanted is not None and value != wanted):
            missing[name] = harm
    return missing
