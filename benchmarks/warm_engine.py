"""Inference and sensitivity over HTTP: the first call, which loads the engine, and the second.

The chain has the size of the demo's; how well it was trained changes nothing here, so it is trained
for a few steps only.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import httpx
from running import server

from ztom.client import Client
from ztom.demo.chains import make_stdlib_chain
from ztom.demo.scenario import StdlibPlan

PLAN = StdlibPlan(per_topic=20, tools=10, base_epochs=1, epochs=1, search_size=8, holdout_size=16)


def seconds_of(client: httpx.Client, path: str, body: dict[str, object]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    answer = client.post(path, json=body)
    if answer.status_code != 200:
        raise SystemExit(f"{path}: {answer.status_code} {answer.text}")
    return time.perf_counter() - began


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=32, help="longest answer, tokens")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        chain = make_stdlib_chain(Path(home, "roots", "chain"), plan=PLAN)
        settings = [f"pointer_roots={json.dumps([str(Path(home, 'roots'))])}"]
        with server(Path(home, "data"), settings=settings) as (url, key, _):
            client = Client(url, key=key)
            project = client.create_project("warm")
            for folder in chain.checkpoints:
                files = client.add_checkpoint(project.id, folder).files
            how = {
                "stimulusPaths": [str(chain.search_file)],
                "inferenceConfigJson": {"max_new_tokens": options.tokens},
            }
            infer = {"modelPath": files[-1].file_path, **how}
            step = {"projectId": project.id, "fileId": files[-1].id, "scalingFactor": -1.0, **how}
            calls = (
                ("inference, first", "inference", infer),
                ("inference, second", "inference", infer),
                (
                    "inference of an earlier checkpoint",
                    "inference",
                    infer | {"modelPath": files[1].file_path},
                ),
                ("sensitivity", "sensitivity", step),
                ("sensitivity, second", "sensitivity", step),
            )
            headers = {"Authorization": f"Bearer {key}"}
            with httpx.Client(base_url=url, headers=headers, timeout=900) as http:
                print(f"{chain.parameters:,} parameters, {len(chain.checkpoints)} checkpoints")
                for name, path, body in calls:
                    taken = seconds_of(http, f"/dynamic_analysis/{path}/batch", body)
                    print(f"{name:40} {taken:6.2f} s", flush=True)


if __name__ == "__main__":
    main()
