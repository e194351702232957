"""A user's function that is not a friend: what it can read, reach, use up and leave behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ztom.errors import ScoringError
from ztom.scoring import user_process
from ztom.scoring.build import ErrorTerm, build_error
from ztom.scoring.user_function import UserFunction
from ztom.scoring.user_process import Limits
from ztom.stimuli.records import Output, Stimulus

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's own means")

#: Told apart from every other sleep on this machine.
SLEEP = f"709.{os.getpid()}"

MODULE = """
import mmap, os, pathlib, resource, signal, socket, subprocess, sys, tempfile, time

def tried(call):
    try:
        return f"got {str(call())[:60]!r}"
    except BaseException as error:
        return type(error).__name__

def answer(prompts, outputs, expected):
    path = prompts[0]
    raise LookupError(tried(lambda: open(path, "rb").read(50)))

def writes(prompts, outputs, expected):
    raise LookupError(tried(lambda: open(prompts[0], "w").write("x")))

def lists(prompts, outputs, expected):
    raise LookupError(tried(lambda: os.listdir(prompts[0])))

def looks(prompts, outputs, expected):
    raise LookupError(tried(lambda: os.stat(prompts[0])))

def connects(prompts, outputs, expected):
    raise LookupError(tried(lambda: socket.create_connection(("127.0.0.1", 9), timeout=5)))

def sends(prompts, outputs, expected):
    socket_ = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    raise LookupError(tried(lambda: socket_.sendto(b"x", ("127.0.0.1", 9))))

def signals(prompts, outputs, expected):
    raise LookupError(tried(lambda: os.kill(int(prompts[0]), 0)))

def identity(prompts, outputs, expected):
    raise LookupError(f"{os.getuid()} {os.getgid()} {os.getgroups()}")

def works(prompts, outputs, expected):
    import numpy
    from concurrent.futures import ProcessPoolExecutor
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "x").write_text("x")
        subprocess.run(["ls", folder], check=True, stdout=subprocess.DEVNULL)
    with ProcessPoolExecutor(2) as pool:
        total = sum(pool.map(abs, [-1, -2]))
    import mine.part
    data = pathlib.Path("labels.txt").read_text()
    return [float(total + numpy.ones(2).sum() + mine.part.NUMBER + len(data))] * len(prompts)

def bomb(prompts, outputs, expected):
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(0.01)

def leaves_orphans(prompts, outputs, expected):
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execvp("sleep", ["sleep", "SLEEP"])
            os._exit(0)
    time.sleep(0.3)
    return [1.0] * len(prompts)

def shares_memory(prompts, outputs, expected):
    block = mmap.mmap(-1, 2**29)
    for start in range(0, 2**29, 4096):
        block[start] = 1
    time.sleep(60)

def nameless_memory(prompts, outputs, expected):
    file = os.memfd_create("m")
    for _ in range(512):
        os.write(file, bytes(2**20))
    time.sleep(60)

def fills_shared_folder(prompts, outputs, expected):
    with open("/dev/shm/much", "wb") as file:
        for _ in range(512):
            file.write(bytes(2**20))
    time.sleep(60)

def many_small(prompts, outputs, expected):
    for _ in range(6):
        if os.fork() == 0:
            kept = bytearray(os.urandom(1)) * (100 * 2**20)
            time.sleep(60)
    time.sleep(60)
"""

OUTPUTS = [Output(text="answer")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "work"
    (folder / "mine").mkdir(parents=True)
    (folder / "mine" / "__init__.py").touch()
    (folder / "mine" / "part.py").write_text("NUMBER = 4\n")
    (folder / "labels.txt").write_text("abc")
    (folder / "unfriendly.py").write_text(MODULE.replace("SLEEP", SLEEP))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def make(folder: Path) -> Iterator[Callable[..., UserFunction]]:
    made: list[UserFunction] = []

    def _make(name: str, **options: object) -> UserFunction:
        options.setdefault("deadline_s", 60.0)
        made.append(UserFunction(f"unfriendly:{name}", **options))  # type: ignore[arg-type]
        return made[-1]

    yield _make
    for function in made:
        function.close()


def outcome(function: UserFunction, argument: object = "") -> str:
    """What the function says, or why it was ended."""
    with pytest.raises(ScoringError) as caught:
        function.score([Stimulus("s", str(argument), "e", "g")], OUTPUTS)
    return str(caught.value)


def sleeping() -> list[str]:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if line.endswith(f"sleep {SLEEP}")]


@pytest.mark.abuse(49)
def test_secrets_are_not_read(make, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = folder.parent / "home"
    secrets = [home / ".ray" / "auth_token", home / ".cache" / "huggingface" / "token"]
    secrets += [folder.parent / "elsewhere.txt", folder / ".env", folder / "ledger.db"]
    secrets += [folder / "ztom-data" / "keys" / "jwt.keys"]
    for path in secrets:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("secret")
    (folder / "ledger.db").chmod(0o600)
    (folder / "ztom-data").chmod(0o700)
    monkeypatch.setenv("HOME", str(home))
    function = make("answer")
    for path in (*secrets, "/etc/shadow"):
        assert "PermissionError" in outcome(function, path), path
    ours = outcome(function, f"/proc/{os.getpid()}/environ")
    assert "PermissionError" in ours or "FileNotFoundError" in ours
    assert "b'abc'" in outcome(function, folder / "labels.txt"), "its own are read"
    assert "PermissionError" in outcome(make("writes"), folder / "labels.txt")
    assert "PermissionError" in outcome(make("lists"), home)
    allowed = make("answer", limits=Limits(reads=(str(secrets[2]),)))
    assert "b'secret'" in outcome(allowed, secrets[2])


@pytest.mark.abuse(49)
def test_it_reaches_nobody(make) -> None:
    for name in ("connects", "sends"):
        message = outcome(make(name))
        assert "PermissionError" in message or "OSError" in message, message
    message = outcome(make("signals"), os.getpid())
    assert "PermissionError" in message or "ProcessLookupError" in message
    assert "ConnectionRefusedError" in outcome(make("connects", limits=Limits(network=True)))


def test_the_sockets_of_ray_are_not_there(make, tmp_path: Path, monkeypatch) -> None:
    sockets = tmp_path / "ray" / "session_1" / "sockets"
    sockets.mkdir(parents=True)
    (sockets / "raylet").touch()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert "FileNotFoundError" in outcome(make("looks"), sockets / "raylet")
    monkeypatch.delenv("RAY_TMPDIR")
    assert "os.stat_result" in outcome(make("looks"), sockets / "raylet"), "so the test can fail"


def test_a_function_with_a_key_may_call(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Who passes it the key of an interface wants it to call that."""
    term = ErrorTerm(function="unfriendly:connects", pass_environment=("SOME_API_KEY",))
    function = build_error(term)
    assert isinstance(function, UserFunction)
    try:
        assert "ConnectionRefusedError" in outcome(function)
    finally:
        function.close()
    closed = build_error(term.model_copy(update={"network": False}))
    assert isinstance(closed, UserFunction)
    try:
        assert "ConnectionRefusedError" not in outcome(closed)
    finally:
        closed.close()


@pytest.mark.abuse(49)
def test_as_root_it_is_somebody_else(make) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    text = outcome(make("identity"))
    user = int(text.rpartition("LookupError")[2].rpartition("): ")[2].split()[0])
    assert user not in (0, os.getuid())
    assert text.endswith("[]")


def test_honest_functions_work(make) -> None:
    function = make("works")
    scores = function.score([Stimulus("s", "p", "e", "g")], OUTPUTS)
    assert scores.aggregate().tolist() == [12.0]


@pytest.mark.abuse(48, 103)
def test_a_fork_bomb_ends_with_all_of_it(make) -> None:
    before = len(list(Path("/proc").glob("[0-9]*")))
    message = outcome(make("bomb", limits=Limits(processes=16), deadline_s=20.0))
    assert "it started more than 16 processes" in message
    assert len(list(Path("/proc").glob("[0-9]*"))) < before + 100


@pytest.mark.abuse(103)
def test_what_left_the_session_is_ended(make) -> None:
    function = make("leaves_orphans")
    function.score([Stimulus("s", "p", "e", "g")], OUTPUTS)
    assert len(sleeping()) == 3
    function.close()
    assert sleeping() == []


@pytest.mark.abuse(50, 103)
@pytest.mark.parametrize(
    "name", ["shares_memory", "nameless_memory", "fills_shared_folder", "many_small"]
)
def test_memory_counts_wherever_it_is(make, name: str) -> None:
    message = outcome(make(name, memory_bytes=400 * 2**20, deadline_s=30.0))
    assert "bytes of memory" in message or "OSError" in message or "MemoryError" in message, message
    assert not Path("/dev/shm/much").exists()


def test_its_temporary_folder_goes_with_it(make) -> None:
    function = make("leaves_orphans")
    function.score([Stimulus("s", "p", "e", "g")], OUTPUTS)
    pid = function._child._process.pid  # type: ignore[union-attr]
    place = Path(os.environ.get("TMPDIR", "/tmp"))
    assert len(list(place.glob(f"ztom-function-{pid}-*"))) == 1
    function.close()
    assert list(place.glob(f"ztom-function-{pid}-*")) == []


_AS_ANOTHER = """
import sys
from ztom.errors import ScoringError
from ztom.scoring import user_process
from ztom.scoring.user_function import UserFunction
from ztom.stimuli.records import Output, Stimulus
import os, logging
logging.basicConfig(format="log: %(message)s")
assert os.geteuid() != 0
sys.executable = "/usr/bin/python3"  # which everybody may read, unlike one in root's home
for name, argument in (("answer", sys.argv[1]), ("connects", ""), ("signals", os.getpid()),
                       ("shares_memory", ""), ("bomb", "")):
    function = UserFunction(f"unfriendly:{name}", deadline_s=20.0, memory_bytes=400 * 2**20)
    try:
        function.score([Stimulus("s", str(argument), "e", "g")], [Output(text="a")])
    except ScoringError as error:
        print(name, error)
    finally:
        function.close()
"""


def test_without_rights_a_namespace_does_it(folder: Path, tmp_path: Path) -> None:
    """A plain account: user namespaces and Landlock instead of another user id."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become a plain account for this")
    if not Path("/usr/bin/python3").exists():
        pytest.skip("the system has no Python that every account can read")
    outer = Path(tempfile.gettempdir())
    for place in (folder, tmp_path, *tmp_path.parents):
        if place.is_relative_to(outer) and place != outer:  # deeper where several processes test
            place.chmod(0o755)
    secret = tmp_path / "token"
    secret.write_text("secret")
    secret.chmod(0o644)
    # for the caller, whose interpreter may lie in root's home
    right = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    place = tmp_path / "temporary"
    place.mkdir()
    os.chown(place, 65534, 65534)
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *right]
        + [sys.executable, "-c", _AS_ANOTHER, str(secret)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "TMPDIR": str(place)},
    )
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert "PermissionError" in lines["answer"], done.stderr
    assert "ConnectionRefusedError" not in lines["connects"]
    assert "PermissionError" in lines["signals"] or "ProcessLookup" in lines["signals"]
    assert "bytes of memory" in lines["shares_memory"]
    assert "more than 128 processes" in lines["bomb"]
    assert "does not allow" not in done.stderr


def test_what_a_system_does_not_allow_is_said_once(
    make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A kernel without namespaces and Landlock: it runs, with limits and a clean environment."""
    lacking = Path(user_process.__file__).with_name("containment.py").read_text()
    lacking = lacking.replace("_CREATE, _ADD, _RESTRICT = 444,", "_CREATE, _ADD, _RESTRICT = 999,")
    assert "= 999," in lacking
    room = Path.cwd() / "room"
    room.mkdir()
    for name in ("user_worker.py", "supervisor.py"):
        shutil.copy(Path(user_process.__file__).with_name(name), room / name)
    text = (room / "supervisor.py").read_text()
    (room / "supervisor.py").write_text(text.replace("_libc.unshare(", "(lambda flags: -1)("))
    (room / "containment.py").write_text(lacking)
    monkeypatch.setattr(user_process, "_WORKER", room / "user_worker.py")
    user_process._log_once.cache_clear()
    with caplog.at_level("WARNING"):
        for _ in range(2):
            function = make("leaves_orphans")
            function.score([Stimulus("s", "p", "e", "g")], OUTPUTS)
            assert len(sleeping()) == 3
            function.close()
            assert sleeping() == [], "hunted down"
    (message,) = caplog.messages
    assert "does not allow them" in message
    assert "Landlock" in message
    assert "namespaces" in message
    bomb = make("bomb", limits=Limits(processes=16), deadline_s=20.0)
    assert "more than 16 processes" in outcome(bomb)
