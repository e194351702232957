"""Passwords: what is checked where there is no account."""

from __future__ import annotations

from argon2 import extract_parameters

from ztom.ledger import passwords


def test_an_unknown_name_takes_as_long_as_a_wrong_password() -> None:
    new = passwords.hash_password("correct horse battery")
    assert extract_parameters(passwords._NOBODY) == extract_parameters(new)
    assert not passwords.is_password("correct horse battery", None)
    assert not passwords.is_password("no account has this password", None)
    assert passwords.is_password("correct horse battery", new)
