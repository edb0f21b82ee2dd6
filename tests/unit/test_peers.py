"""The rule for missing peers."""

from __future__ import annotations

import pytest

from tests import peers


def test_a_peer_on_the_path_is_found() -> None:
    assert peers.require("sh", package="dash").name == "sh"


def test_a_judge_beside_python_is_found_without_an_activated_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert peers.require("pytest", package="pytest").is_file()


def test_a_missing_peer_skips_with_the_name_of_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="install the package dcmtk"):
        peers.require("no-such-program", package="dcmtk")


def test_a_missing_peer_fails_under_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="install the package dcmtk"):
        peers.require("no-such-program", package="dcmtk")
