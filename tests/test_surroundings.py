"""The package beside others, and without being installed."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import neuroglot as ng
from neuroglot.store import provenance
from tests.testing import small_task, tiny_model

# As nnsight does it, after importing what it needs itself: from then on everything has an
# attribute ``save``.
PATCH = """
import ctypes, gc
import huggingface_hub.hf_api, torch, transformers
gc.get_referents(object.__dict__)[0]["save"] = lambda self: self
ctypes.pythonapi.PyType_Modified(ctypes.py_object(object))
assert (3).save() == 3
"""
IMPORT_ALL = """
import importlib, pkgutil
import neuroglot
for module in pkgutil.walk_packages(neuroglot.__path__, "neuroglot."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
USE = """
from tests.testing import small_task, tiny_model
assert len(neuroglot.record(tiny_model("llama"), small_task(2))) == 2
print("as expected")
"""


@pytest.mark.parametrize("code", [PATCH + IMPORT_ALL + USE, "import neuroglot" + PATCH + USE])
def test_every_object_may_have_an_attribute_save(code: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert "as expected" in found.stdout, found.stderr


def test_a_version_may_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(provenance, "version", missing)
    recording = ng.record(tiny_model("llama"), small_task(2))
    assert recording.attrs["neuroglot_version"] == "unknown"


def test_a_source_tree_that_is_not_installed(tmp_path: Path) -> None:
    """Found on the path alone, as in a bare checkout beside the packages that it needs."""
    code = "import sys; sys.meta_path[:] = [x for x in sys.meta_path if 'editable' not in repr(x)]"
    code += """
import importlib.metadata as metadata
found = metadata.version
def version(package):
    if package == "neuroglot":
        raise metadata.PackageNotFoundError(package)
    return found(package)
metadata.version = version
import neuroglot
assert neuroglot.__file__.startswith(sys.argv[1])
import neuroglot.cli.app
from neuroglot.store.provenance import versions
print(versions()["neuroglot_version"])
"""
    (tmp_path / "neuroglot").symlink_to(Path(ng.__file__).parent)
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path[1:]])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert found.stdout.strip() == "unknown", found.stderr
