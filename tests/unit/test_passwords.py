from __future__ import annotations

import pytest
from argon2 import PasswordHasher

from triage_node import passwords
from triage_node.config import UserSection

CHEAP = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


def test_a_hash_is_what_the_configuration_takes_and_another_one_each_time() -> None:
    one, other = passwords.hashed("words that belong nowhere"), passwords.hashed("words that belong nowhere")
    assert one != other
    assert UserSection(name="a", password_hash=one).password_hash == one
    assert one.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert passwords.Passwords({"a": one}).right("a", "words that belong nowhere")


def test_only_the_right_password_of_a_known_name_is_right() -> None:
    known = passwords.Passwords({"a": CHEAP.hash("first of them"), "b": CHEAP.hash("second of them")})
    assert known
    assert known.right("a", "first of them")
    for name, password in (
        ("a", "second of them"),
        ("a", ""),
        ("c", "first of them"),
        ("", ""),
        ("a", "first of them "),
    ):
        assert not known.right(name, password)


def test_without_any_password_nobody_is_right() -> None:
    nobody = passwords.Passwords({})
    assert not nobody
    assert not nobody.right("a", "")


def test_signs_of_every_script_make_a_password() -> None:
    known = passwords.Passwords({"a": CHEAP.hash("пароль из слов ä€")})
    assert known.right("a", "пароль из слов ä€")
    assert not known.right("a", "пароль из слов a€")


@pytest.mark.parametrize(
    ("password", "words"),
    [
        ("short", "12 characters or more"),
        ("", "12 characters or more"),
        ("x" * 1025, "at most 1024"),
        ("aaaaaaaaaaaa", "repeats the same few"),
    ],
)
def test_a_poor_password_is_not_taken(password: str, words: str) -> None:
    assert words in str(passwords.fault(password))


def test_a_good_one_is() -> None:
    assert passwords.fault("four words in a row") is None
