"""The load of `benchmarks/overload.py`: users who each send one request a second, come what may.

`locust` runs it; the key and the model come from the environment.
"""

from __future__ import annotations

import os

from locust import FastHttpUser, constant_throughput, task


class User(FastHttpUser):
    """One user; a 429 is an answer that is expected here, anything else but a 200 is a failure."""

    wait_time = constant_throughput(1)

    @task
    def complete(self) -> None:
        """Ask for a few tokens."""
        with self.client.post(
            "/v1/completions",
            json={"model": os.environ["ZTOM_MODEL"], "prompt": "a few words", "max_tokens": 16},
            headers={"Authorization": f"Bearer {os.environ['ZTOM_API_KEY']}"},
            catch_response=True,
        ) as answer:
            if answer.status_code == 429 and "retry-after" in answer.headers:
                answer.request_meta["name"] = "429"
                answer.success()
            elif answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
