"""What the commands of ``ztom drift`` do."""

from __future__ import annotations

from pathlib import Path

from ztom.cli.console import plain_console, print_document
from ztom.drift.config import MonitorConfig, read_monitor
from ztom.drift.findings import Look
from ztom.drift.inputs import Embed
from ztom.drift.monitor import Monitor, MonitorState
from ztom.drift.monitor import acted as begin_anew
from ztom.drift.observations import Observation, read_observations
from ztom.errors import ConfigError
from ztom.io.files import write_document
from ztom.io.problems import check_json


def replay_command(
    monitor_file: Path,
    log: Path,
    *,
    reference: Path | None,
    state: Path | None,
    meanings: bool,
    as_json: bool,
) -> bool:
    """Look at the windows of a log; returns whether an alarm is open.

    Raises:
        ConfigError: The monitor or the state is malformed, or there is no reference.
        StimuliError: A file of observations is malformed.
    """
    config = read_monitor(monitor_file)
    rows = read_observations(log)
    before = _reference(config, rows, reference)
    monitor = Monitor(config, before, embed=_embedder() if meanings and config.inputs else None)
    now = _read_state(state)
    for look, after in monitor.replay(rows, now):
        now = after
        if state is not None:  # what was said is kept before the next window is begun
            write_document(state, now.model_dump_json(indent=1) + "\n")
        _print_look(look, as_json=as_json)
    return now.open is not None


def acted_command(state: Path, *, as_json: bool) -> None:
    """Close the open alarm of a state.

    Raises:
        ConfigError: The file is no state, or no alarm is open.
    """
    now = _read_state(state, must_exist=True)
    if now.open is None:
        raise ConfigError(f"no alarm is open in {state}")
    write_document(state, begin_anew(now).model_dump_json(indent=1) + "\n")
    if as_json:
        print_document({"closed": now.open})
    else:
        plain_console().print(f"closed: {', '.join(now.open.signals)} in window {now.open.window}")


def plan_command(monitor_file: Path, reference: Path, *, labels: int | None, as_json: bool) -> None:
    """Say what the labelled monitor promises.

    Raises:
        ConfigError: The monitor is malformed, or the reference has no labels drawn at random.
    """
    config = read_monitor(monitor_file)
    quality = Monitor(config, read_observations(reference)).quality
    if quality is None:
        raise ConfigError(
            f"there is nothing to plan for: {reference}",
            expected="labels that were drawn at random, and a monitor with quality",
        )
    count = config.quality.labels if labels is None and config.quality else labels
    promises = quality.promises(count)
    if as_json:
        print_document(
            {"wrong": quality.wrong, "total": quality.total, "labels": count, "promises": promises}
        )
        return
    horizon = f"{config.horizon} windows"
    plain_console().print(
        f"reference: {quality.wrong} of {quality.total} wrong; {count} labels a window\n"
        f"false alarms within {horizon}: {promises.false_alarms:.1%}\n"
        f"windows to an alarm where the share of wrong answers rises by "
        f"{quality.config.decay:.1%} a window: {_windows(promises.median_delay)} in the median, "
        f"{_windows(promises.late_delay)} in nine of ten"
    )


def _windows(delay: int | None) -> str:
    return "more than the horizon" if delay is None else str(delay)


def _reference(
    config: MonitorConfig, rows: tuple[Observation, ...], reference: Path | None
) -> tuple[Observation, ...]:
    if reference is not None:
        return read_observations(reference)
    before = tuple(row for row in rows if row.time < config.start)
    if not before:
        raise ConfigError(
            "there is no reference",
            got=f"a log that begins at {rows[0].time.isoformat()}",
            expected=f"observations before {config.start.isoformat()}, the monitor's start",
            fix="Give them with --reference, or let the monitor start later.",
        )
    return before


def _read_state(state: Path | None, *, must_exist: bool = False) -> MonitorState:
    if state is None or not (must_exist or state.exists()):
        return MonitorState()
    try:
        content = state.read_bytes()
    except OSError as error:
        raise ConfigError(f"the state {state} cannot be read", reason=error) from error
    return check_json(MonitorState, content, wrong=f"{state} is no state of a monitor")


def _embedder() -> Embed:
    from ztom.scoring.embeddings import TextEmbedder  # torch takes seconds

    return TextEmbedder().vectors


def _print_look(look: Look, *, as_json: bool) -> None:
    if as_json:
        print(look.model_dump_json(), flush=True)
        return
    console = plain_console()
    console.print(
        f"window {look.window}, {look.start:%Y-%m-%d} to {look.end:%Y-%m-%d}: "
        f"{look.requests} requests, {look.labels} labels"
    )
    for finding in look.findings:
        mark = "ALARM" if finding.is_alarm else "  -  "
        chance = "" if finding.p_value is None else f" (p = {finding.p_value:.2g})"
        console.print(f"  {mark} {finding.signal} {finding.test}: {finding.sentence}{chance}")
        for cluster in finding.clusters:
            console.print(
                f"        from {cluster.share_before:.1%} to {cluster.share_now:.1%}: "
                + "; ".join(cluster.examples)
            )
    if look.alarm is not None:
        console.print(f"  an alarm is open now: {', '.join(look.alarm.signals)}")
