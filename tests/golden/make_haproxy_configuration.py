"""Writes haproxy_ray_*.cfg: the HAProxy configuration that the installed Ray Serve writes, before
and after it knows an application, and the sha256 of the template that it writes it from.

    python tests/golden/make_haproxy_configuration.py

Run it again when Ray changes what it writes, and read what changed before the rules of
serve_apps/server/haproxy_rules.py follow.
"""

import hashlib
import os
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

METRICS, STATS, GATEWAY, SERVE = 18404, 18403, 18405, 18406


def main(folder):
    # read by Ray when it is imported
    os.environ["RAY_SERVE_HAPROXY_SERVER_STATE_BASE"] = str(folder)
    os.environ["RAY_SERVE_HAPROXY_SERVER_STATE_FILE"] = str(folder / "server-state")
    os.environ["RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH"] = str(folder / "metrics.sock")
    os.environ["RAY_SERVE_HAPROXY_NBTHREAD"] = "2"
    os.environ["RAY_SERVE_THROUGHPUT_OPTIMIZED"] = "1"
    from ray.serve._private import haproxy

    application = haproxy.BackendConfig(
        name="http-ztom",
        path_prefix="/",
        app_name="ztom",
        servers=[haproxy.ServerConfig("replica-1", "127.0.0.1", GATEWAY)],
        fallback_server=haproxy.ServerConfig("serve-proxy", "127.0.0.1", SERVE),
    )
    release = "_".join(version("ray").split(".")[:2])
    for case, backends in {"empty": {}, "application": {application.name: application}}.items():
        config = haproxy.HAProxyConfig(
            socket_path=str(folder / "admin.sock"), metrics_port=METRICS, stats_port=STATS
        )
        path = folder / f"{case}.cfg"
        haproxy.HAProxyApi(config, backends, str(path))._generate_config_file_internal()
        text = path.read_text().replace(str(folder), "/run/ztom")
        Path(__file__).with_name(f"haproxy_ray_{release}_{case}.cfg").write_text(text)
    Path(__file__).with_name(f"haproxy_ray_{release}.sha256").write_text(template_digest() + "\n")


def template_digest():
    """sha256 of the file that Ray Serve writes HAProxy's configuration from; imports no Ray."""
    ray = Path(find_spec("ray").origin).parent
    return hashlib.sha256((ray / "serve/_private/haproxy_templates.py").read_bytes()).hexdigest()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
