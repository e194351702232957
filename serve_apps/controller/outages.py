"""Applications that serve and have lost every replica: when they are deployed again.

Ray Serve starts a replica that died again, and gives the application up where that fails several
times in a row (``DEPLOY_FAILED``); it stays on the list and answers nobody. An `Outage` counts how
often it was deployed again, and the wait before the next try doubles each time.

The functions are pure: what is known goes in and comes out, and time is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from serve_apps.controller.apps import AppState, AppStatus

#: Seconds for which an application is without replicas before it is deployed again.
FIRST_WAIT_S = 5.0
#: Seconds of the longest wait between two tries: it is about what Serve itself waits at most.
LONGEST_WAIT_S = 60.0
#: How the reason of a deployment that serves begins: it has lost its replicas, or could not be
#: started again if it did.
LOST, UNSTARTABLE = "all of its replicas are lost", "it cannot be started again"


@dataclass(frozen=True, slots=True)
class Outage:
    """An application without replicas.

    Attributes:
        tries: How often it was deployed again.
        since: When it was seen without replicas, monotonic seconds; None while it is being started.
    """

    tries: int = 0
    since: float | None = None

    @property
    def wait_s(self) -> float:
        """Seconds from `since` to the next try."""
        return float(min(FIRST_WAIT_S * 2**self.tries, LONGEST_WAIT_S))

    def is_due(self, now: float) -> bool:
        """Whether the application is to be deployed again.

        Args:
            now: The time, monotonic seconds.
        """
        return self.since is not None and now - self.since >= self.wait_s


def is_lost(status: AppStatus) -> bool:
    """Whether an application has failed, no replica runs, and none is on its way."""
    return status.state is AppState.FAILED and not status.replicas and not status.coming


def follow_outages(
    outages: Mapping[str, Outage], running: Mapping[str, AppStatus], now: float
) -> dict[str, Outage]:
    """What is known of outages after one more look.

    Args:
        outages: What was known, by application.
        running: Applications by name.
        now: The time, monotonic seconds.

    Returns:
        An entry for each application that has no replicas or is being started after that; one that
        runs is forgotten, with its tries.
    """
    known = {}
    for name in {**outages, **running}:
        before, status = outages.get(name), running.get(name)
        if status is not None and is_lost(status):
            outage = before or Outage()
            known[name] = replace(outage, since=now if outage.since is None else outage.since)
        elif before is not None and (status is None or status.state is not AppState.RUNNING):
            known[name] = replace(before, since=None)
    return known


def deployed_again(outage: Outage) -> Outage:
    """What is known of an outage once its application is deployed again."""
    return Outage(outage.tries + 1)


def reason_of(outage: Outage, message: str) -> str:
    """A sentence for whoever asks how the deployment is.

    Args:
        outage: Outage of its application.
        message: What Ray Serve says of the application.
    """
    again = f"it is deployed again (try {outage.tries + 1}, after {outage.wait_s:g} s)"
    return f"{LOST}; {again}: {message or 'Ray Serve does not say why'}"
