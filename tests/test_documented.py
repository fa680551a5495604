"""What users see of the public names: every one is described, and its examples are true."""

from __future__ import annotations

import doctest
import inspect
from typing import Any

import pytest

import neuroglot as ng

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def members_of(public: Any) -> dict[str, Any]:
    """Public methods and properties that a class of the package defines, by name."""
    if not inspect.isclass(public) or issubclass(public, Exception):
        return {}
    return {
        name: member
        for name, member in vars(public).items()
        if not name.startswith("_")
        and (callable(member) or isinstance(member, property | classmethod | staticmethod))
    }


def test_what_can_be_seen_is_what_is_public() -> None:
    assert sorted(name for name in dir(ng) if not name.startswith("_")) == sorted(ng.__all__)


@pytest.mark.parametrize("name", ng.__all__)
def test_every_public_name_is_described(name: str) -> None:
    public = getattr(ng, name)
    assert inspect.getdoc(public)
    for member, value in members_of(public).items():
        assert inspect.getdoc(value), f"{name}.{member}"


@pytest.mark.parametrize("name", ng.__all__)
def test_examples_are_true(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    found = doctest.DocTestFinder(recurse=True).find(getattr(ng, name), name, globs={"ng": ng})
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    said: list[str] = []
    for test in found:
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)
