"""MLflow's own server with two versions of a model in its registry.

MLflow wants older versions of packages that are installed here, so it has a place of its own:
``pip install --target FOLDER mlflow``, and ``ZTOM_MLFLOW=FOLDER`` in the tests' environment.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests

PLACE = os.environ.get("ZTOM_MLFLOW")
_REGISTER = """
import sys
import mlflow

mlflow.set_tracking_uri(sys.argv[1])
client = mlflow.MlflowClient()
client.create_registered_model("support")
for folder in sys.argv[2:]:
    with mlflow.start_run() as run:
        mlflow.log_artifacts(folder, "model")
    source = f"{run.info.artifact_uri}/model"
    version = client.create_model_version("support", source, run.info.run_id)
client.set_registered_model_alias("support", "champion", version.version)
"""


@contextmanager
def mlflow_server(home: Path, models: Sequence[Path]) -> Iterator[str]:
    """The address of a server that hands files out itself; ``champion`` is the last version.

    Args:
        home: Folder of its database and files.
        models: Folder of each version's files.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    python = getattr(sys, "_base_executable", sys.executable)
    environment = {**os.environ, "PYTHONPATH": PLACE or "", "MLFLOW_ENABLE_TELEMETRY": "false"}
    command = [python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--workers", "1"]
    command += ["--artifacts-destination", str(home / "artifacts")]
    address = f"http://127.0.0.1:{port}"
    with (home / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=home, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait(process, address, home / "mlflow.log")
            register = [python, "-c", _REGISTER, address, *map(str, models)]
            subprocess.run(register, env=environment, cwd=home, check=True, capture_output=True)
            yield address
        finally:
            os.killpg(process.pid, 15)
            process.wait(60)


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + 180
    while True:
        try:
            if requests.get(f"{address}/health", timeout=5).ok:
                return
        except requests.RequestException:
            pass
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
