"""Logging in while others guess, from elsewhere, or with another clock. Cases 63, 75 and 105."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from server_helpers import PASSWORD, Server, serving

from serve_apps.control_plane import hashing
from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.limits import LoginLimit
from serve_apps.control_plane.tokens import LOGIN, Tokens
from ztom.ledger import passwords

HOUR_S = 3600.0
OFFICE, ELSEWHERE = "192.0.2.1", "203.0.113.9"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(ServerConfig(data=tmp_path)) as server:
        yield server


def log_in(
    server: Server, name: str, password: str = PASSWORD, *, address: str = OFFICE
) -> requests.Response:
    """A login that our own proxy has passed on from an address."""
    return requests.post(
        f"{server.url}/api/auth/login",
        json={"username": name, "password": password},
        headers={"X-Forwarded-For": f"198.51.100.7, {address}"},
        timeout=30,
    )


@pytest.mark.abuse(75)
def test_guessing_closes_an_account_to_the_guesser_alone(server: Server) -> None:
    session = server.as_user("root", admin=True)
    guesses = [log_in(server, "root", f"guess {n}", address=ELSEWHERE) for n in range(7)]
    assert [answer.status_code for answer in guesses] == [401] * 5 + [429] * 2
    seconds = int(guesses[-1].headers["Retry-After"])
    assert 50 < seconds <= 61
    assert guesses[-1].json()["detail"] == f"Too many wrong passwords. Try again in {seconds} s."
    # the right one from there would tell the guesser that it is right
    assert log_in(server, "root", address=ELSEWHERE).status_code == 429
    assert log_in(server, "root", address=OFFICE).status_code == 200
    assert session.get(f"{server.url}/project", timeout=30).status_code == 200


@pytest.mark.abuse(75)
def test_an_account_is_one_account_however_it_is_spelt(server: Server) -> None:
    server.as_user("ada")
    spellings = ("ada", "ADA", " ada", "ada@example.org", "\uff41\uff44\uff41", "Ada@Example.org ")
    answers = [log_in(server, name, "wrong").status_code for name in spellings]
    assert answers == [401] * 5 + [429]
    assert log_in(server, "\uff41DA", address=ELSEWHERE).status_code == 200


def test_a_caller_cannot_choose_the_address_that_it_comes_from(server: Server) -> None:
    server.as_user("ada")

    def guess(n: int) -> int:
        return requests.post(
            f"{server.url}/api/auth/login",
            json={"username": "ada", "password": "wrong"},
            # what a client writes stands before what the proxy adds
            headers={"X-Forwarded-For": f"10.0.0.{n}, {ELSEWHERE}"},
            timeout=30,
        ).status_code

    assert [guess(n) for n in range(6)] == [401] * 5 + [429]


@pytest.mark.abuse(75)
def test_a_hundred_strangers_at_the_login_wait_for_each_other_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = server.as_user("ada")
    busiest = _most_at_once(monkeypatch)
    with ThreadPoolExecutor(100) as pool:
        logins = [pool.submit(log_in, server, f"nobody-{n}") for n in range(100)]
        slowest = 0.0
        while not all(login.done() for login in logins):
            began = time.perf_counter()
            assert session.get(f"{server.url}/project", timeout=30).status_code == 200
            slowest = max(slowest, time.perf_counter() - began)
    answers = [login.result() for login in logins]
    assert {answer.status_code for answer in answers} <= {401, 429, 503}
    assert sum(answer.status_code == 401 for answer in answers) <= 30
    assert all("Retry-After" in a.headers for a in answers if a.status_code != 401)
    assert busiest() <= hashing._THREADS
    assert slowest < 5


def _most_at_once(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Count how many passwords are checked at the same time."""
    lock, now, most = threading.Lock(), 0, 0
    check = passwords.is_password

    def counted(password: str, kept: str | None) -> bool:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        try:
            return check(password, kept)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr("serve_apps.control_plane.routes.accounts.is_password", counted)
    return lambda: most


def test_guesses_from_everywhere_close_an_account_to_new_addresses_only() -> None:
    limit = LoginLimit(ServerConfig(login_failures_per_account=3))
    assert limit.take("ada", OFFICE, now=0.0) == 0.0
    limit.succeeded("ada", OFFICE)
    for n in range(3):
        assert limit.take("ada", f"203.0.113.{n}", now=1.0) == 0.0
    assert limit.take("ada", "203.0.113.99", now=2.0) == pytest.approx(HOUR_S - 1)
    assert limit.take("ada", OFFICE, now=2.0) == 0.0
    assert limit.take("grace", "203.0.113.99", now=2.0) == 0.0
    assert limit.take("ada", "203.0.113.99", now=HOUR_S + 2) == 0.0


def test_an_address_tries_so_many_names_a_minute() -> None:
    limit = LoginLimit(ServerConfig(login_failures_per_address=3))
    assert [limit.take(f"n{n}", ELSEWHERE, now=0.0) for n in range(3)] == [0.0] * 3
    assert limit.take("n4", ELSEWHERE, now=10.0) == pytest.approx(50.0)
    assert limit.take_registration(ELSEWHERE, now=10.0) == pytest.approx(50.0)
    assert limit.take("n4", OFFICE, now=10.0) == 0.0
    assert limit.take("n4", ELSEWHERE, now=60.5) == 0.0
    limit.succeeded("n4", ELSEWHERE)
    assert limit.take_registration(ELSEWHERE, now=60.5) == 0.0


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.abuse(63, 105)
@pytest.mark.parametrize(
    ("step_s", "holds"),
    [
        (-HOUR_S, False),  # the token is of a time that has not come
        (-20, True),
        (-1, True),
        (0, True),
        (1, True),
        (HOUR_S, True),  # of twelve hours
        (12 * HOUR_S + 20, True),
        (12 * HOUR_S + HOUR_S, False),
    ],
)
def test_a_clock_that_is_set(step_s: float, *, holds: bool) -> None:
    clock = Clock()
    tokens = Tokens((b"k" * 48,), clock=clock)
    token = tokens.issue("ada", audience=LOGIN, seconds=12 * HOUR_S)
    clock.now += step_s
    assert (tokens.check(token, audience=LOGIN) is not None) == holds
    # whatever happened to the clock, one logs in again at once
    again = tokens.issue("ada", audience=LOGIN, seconds=12 * HOUR_S)
    assert tokens.check(again, audience=LOGIN) is not None


@pytest.mark.abuse(105)
def test_a_server_whose_clock_goes_back_a_second_logs_nobody_out(server: Server) -> None:
    clock = Clock()
    clock.now = time.time()
    server.services.tokens._clock = clock
    session = server.as_user("ada")
    for step_s in (-1, -10, 11, HOUR_S, -HOUR_S):
        clock.now += step_s
        assert session.get(f"{server.url}/api/auth/user", timeout=30).status_code == 200
    clock.now -= HOUR_S
    assert session.get(f"{server.url}/api/auth/user", timeout=30).status_code == 401
    assert server.as_user("ada").get(f"{server.url}/project", timeout=30).status_code == 200
