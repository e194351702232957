"""Feed what comes from outside with inputs made by chance, and count what must not happen.

    python benchmarks/fuzz.py [--inputs 1000000] [--seed 1] [--state fuzz-state] [--only tar,jwt]

Every target runs in a process of its own. A finding is an exception that is no refusal, a status of
500 or more, an input that takes longer than 2 s of processor time or never ends, and a process that
dies. Findings are kept in the state folder, as bytes; what is mended belongs to ``tests/corpus``.
Called again with the same state folder, it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fuzz_inputs import make_input
from fuzz_targets import TARGETS, open_target

LIMIT_S = 2.0
#: Without a step for so long a process is held to hang; the machine may be busy with other things.
_STUCK_S = 60.0
_BATCH = 5_000
_WARM = 2_000
#: Of a million, how many thousandths each target gets; the server costs a hundred times as much.
SHARES = {
    "safetensors": 200, "tar": 150, "bodies": 60, "openai": 290, "yaml": 50, "stimuli": 80,
    "jwt": 170,
}  # fmt: skip


@dataclass
class Tally:
    """What came of a target's inputs.

    Attributes:
        done: Inputs so far; also the number of the next.
        seconds: Seconds that they took.
        findings: Names of the findings' files, with the reason.
        outcomes: Inputs by what became of them.
        first_mib: Resident memory after the warm-up, MiB; of the latest process.
        last_mib: The same at the end.
        growth_mib: Largest growth of one process after its warm-up, MiB.
        slowest_s: Most processor seconds that one input took.
    """

    done: int = 0
    seconds: float = 0.0
    findings: dict[str, str] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    first_mib: float = 0.0
    last_mib: float = 0.0
    growth_mib: float = 0.0
    slowest_s: float = 0.0


def resident_mib() -> float:
    """Resident memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def feed(name: str, *, seed: int, first: int, count: int, state: Path) -> Tally:
    """Feed a target in this process.

    Args:
        name: Name of the target.
        seed: Seed of the run.
        first: Number of the first input.
        count: Number of inputs.
        state: Folder for findings, and for the number of the input that is being fed.
    """
    outcomes: Counter[str] = Counter()
    tally = Tally()
    place = (state / f"{name}.at").open("w+b")
    place.write(bytes(8))
    place.flush()
    with (
        mmap.mmap(place.fileno(), 8) as at,
        _work_folder() as folder,
        open_target(name, folder) as target,
    ):
        for number in range(first, first + count):
            at[:] = number.to_bytes(8, "little")
            data = make_input(target.seeds, seed=seed, target=name, number=number)
            reason, before = "", time.process_time()
            try:
                outcomes[target.feed(data)] += 1
            except (Exception, RecursionError) as error:
                reason = f"{type(error).__name__}: {error}"[:300]
            took = time.process_time() - before
            tally.slowest_s = max(tally.slowest_s, took)
            if took > LIMIT_S:
                reason = reason or f"took {took:.1f} s"
            if reason:
                tally.findings[_keep(state, name, data)] = reason
            if number == first + min(_WARM, count - 1):
                tally.first_mib = resident_mib()
        tally.last_mib = resident_mib()
    place.close()
    tally.done, tally.outcomes = count, dict(outcomes)
    tally.growth_mib = tally.last_mib - tally.first_mib
    return tally


def _work_folder() -> contextlib.AbstractContextManager[Path]:
    """A folder in memory where there is one: the disk is not what is tried."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

    @contextlib.contextmanager
    def folder():  # type: ignore[no-untyped-def]
        path = Path(tempfile.mkdtemp(prefix="ztom-fuzz-", dir=memory))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    return folder()


def _keep(state: Path, name: str, data: bytes) -> str:
    file = f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
    (state / "findings").mkdir(exist_ok=True)
    (state / "findings" / file).write_bytes(data)
    return file


def run_batch(name: str, tally: Tally, *, seed: int, count: int, state: Path) -> None:
    """Feed so many more in a process of its own, and add what came of it."""
    command = [sys.executable, __file__, "--child", name, "--seed", str(seed)]
    command += ["--first", str(tally.done), "--inputs", str(count), "--state", str(state)]
    began = time.monotonic()
    with (state / f"{name}.log").open("a") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        ended = _wait(process, state / f"{name}.at")
        text = process.stdout.read() if process.stdout else ""
        if process.stdout:
            process.stdout.close()
    tally.seconds += time.monotonic() - began
    if ended == "" and text:
        batch = Tally(**json.loads(text))
        _add(tally, batch)
        return
    number = int.from_bytes((state / f"{name}.at").read_bytes()[:8], "little")
    with _work_folder() as folder, open_target(name, folder) as target:
        data = make_input(target.seeds, seed=seed, target=name, number=number)
    tally.findings[_keep(state, name, data)] = ended or f"the process died ({process.returncode})"
    tally.done = max(number + 1, tally.done + 1)


def _add(tally: Tally, batch: Tally) -> None:
    tally.done += batch.done
    tally.findings |= batch.findings
    tally.outcomes = dict(Counter(tally.outcomes) + Counter(batch.outcomes))
    tally.first_mib, tally.last_mib = batch.first_mib, batch.last_mib
    tally.growth_mib = max(tally.growth_mib, batch.growth_mib)
    tally.slowest_s = max(tally.slowest_s, batch.slowest_s)


def _wait(process: subprocess.Popen[str], at: Path) -> str:
    """Wait for it; returns why it was ended, or nothing."""
    seen, since = b"", time.monotonic()
    while process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
        now = at.read_bytes() if at.exists() else b""
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > _STUCK_S:
            process.kill()
            process.wait()
            return f"no end within {_STUCK_S:g} s"
    return ""


def main() -> int:
    """Run, print a table; returns the exit status: 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--state", type=Path, default=Path("fuzz-state"))
    parser.add_argument("--only", default=",".join(TARGETS))
    parser.add_argument("--child", choices=TARGETS)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    options.state.mkdir(parents=True, exist_ok=True)
    if options.child:
        tally = feed(
            options.child,
            seed=options.seed,
            first=options.first,
            count=options.inputs,
            state=options.state,
        )
        print(json.dumps(asdict(tally)))
        return 0
    names = options.only.split(",")
    file = options.state / f"tally-{options.seed}.json"
    saved = json.loads(file.read_text()) if file.exists() else {}
    tallies = {name: Tally(**saved.get(name, {})) for name in TARGETS}
    share = sum(SHARES[name] for name in names)
    aims = {name: options.inputs * SHARES[name] // share for name in names}
    # in turns, so that a run that is stopped has tried everything
    while open_names := [name for name in names if tallies[name].done < aims[name]]:
        for name in open_names:
            count = min(_BATCH * SHARES[name] // 100 + 500, aims[name] - tallies[name].done)
            run_batch(name, tallies[name], seed=options.seed, count=count, state=options.state)
            text = json.dumps({key: asdict(value) for key, value in tallies.items()}, indent=1)
            file.write_text(text, encoding="utf-8")
    for name in names:
        _print(name, tallies[name])
    return 1 if any(tallies[name].findings for name in names) else 0


def _print(name: str, tally: Tally) -> None:
    rate = tally.done / max(tally.seconds, 1e-9)
    print(
        f"{name:12} {tally.done:9,} inputs, {rate:7,.0f}/s, slowest {tally.slowest_s:.2f} s, "
        f"growth {tally.growth_mib:+.1f} MiB, {len(tally.findings)} findings"
    )
    for file, reason in sorted(tally.findings.items()):
        print(f"    {file}: {reason}")


if __name__ == "__main__":
    sys.exit(main())
