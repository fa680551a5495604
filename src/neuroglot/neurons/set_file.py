"""A neuron set as one file: a line of JSON, then packed bits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuroglot.errors import NeuroglotError, shown
from neuroglot.outputs import write_file

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Provenance = str | int | float
FORMAT = "neuroglot neuron set 1"
LONGEST_HEADER = 2**26
FURTHER = ("widths", "unit", "chosen_on")
"""What a header may say of a set that is not as usual."""


def write_set(
    path: str | Path,
    mask: Mask,
    name: str,
    provenance: Mapping[str, Provenance],
    further: Mapping[str, Any],
    *,
    overwrite: bool,
) -> None:
    """Write a mask (layer, neuron) with its name, whole or not at all.

    Args:
        path: of the file.
        mask: the neurons.
        name: of the set.
        provenance: where it comes from.
        further: of :data:`FURTHER`, what is not as usual.
        overwrite: replace a file.

    Raises:
        NeuroglotError: ``path`` exists and ``overwrite`` is not set, or cannot be written.
    """
    out = _as_file(path)
    if out.exists() and not overwrite:
        raise NeuroglotError(f"{str(out)!r} exists; pass overwrite=True to replace it.")
    bits = np.packbits(mask, axis=1).tobytes()
    header = {
        "format": FORMAT,
        "name": name,
        "shape": list(mask.shape),
        "sizes": [int(n) for n in mask.sum(axis=1)],
        "provenance": dict(provenance),
        **further,
        "sha256": hashlib.sha256(bits).hexdigest(),
    }
    try:
        _check_plain(name, provenance)
        line = json.dumps(header, ensure_ascii=False).encode()
    except ValueError as error:  # texts that cannot be encoded, too
        raise NeuroglotError(f"neuron set {shown(name)}: {error}.") from error
    try:
        write_file(out, line + b"\n" + bits)
    except OSError as error:
        raise NeuroglotError(f"cannot write {str(out)!r}: {error}.") from error


def _as_file(path: str | Path) -> Path:
    """The path, if it can be one of a file.

    Raises:
        NeuroglotError: it is a folder, or no path at all.
    """
    file = Path(path)
    try:
        if file.is_dir():
            raise NeuroglotError(f"{str(path)!r} is a folder; a neuron set is one file.")
    except (OSError, ValueError) as error:
        raise NeuroglotError(f"cannot use the path {str(path)!r}: {error}.") from error
    return file


def read_set(path: str | Path) -> tuple[Mask, str, dict[str, Provenance], dict[str, Any]]:
    """Mask (layer, neuron), name, provenance and what else a file says that was written here.

    Raises:
        NeuroglotError: no such file, or one that does not hold what it says.
    """
    file = _as_file(path)
    try:
        with file.open("rb") as opened:
            line = opened.readline(LONGEST_HEADER)
            bits = opened.read()
    except (OSError, ValueError) as error:  # a null character in a path is a ValueError
        raise NeuroglotError(f"cannot read {str(file)!r}: {error}.") from error
    try:
        return _parsed(line, bits)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise NeuroglotError(
            f"{str(file)!r} is no sound neuron set ({shown(str(error))}). Save it again, or get "
            "another copy."
        ) from error


def _parsed(line: bytes, bits: bytes) -> tuple[Mask, str, dict[str, Provenance], dict[str, Any]]:
    header = json.loads(line.decode())
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"its first line is no JSON header of format {FORMAT!r}")
    n_layers, n_neurons = (_counted(n) for n in header["shape"])
    n_bytes = -(-n_neurons // 8)
    if len(bits) != n_layers * n_bytes:
        raise ValueError(f"{len(bits)} bytes, expected {n_layers * n_bytes} by its shape")
    if hashlib.sha256(bits).hexdigest() != header["sha256"]:
        raise ValueError("the checksum does not match: it is damaged")
    packed = np.frombuffer(bits, np.uint8).reshape(n_layers, n_bytes)
    mask = np.unpackbits(packed, axis=1, count=n_neurons).astype(np.bool_)
    sizes = [int(n) for n in mask.sum(axis=1)]
    if header["sizes"] != sizes or int(np.bitwise_count(packed).sum()) != sum(sizes):
        raise ValueError("it says that it has other numbers of neurons than it has")
    name, provenance = header["name"], header["provenance"]
    _check_plain(name, provenance)
    return mask, name, provenance, _further(header)


def _further(header: Mapping[str, Any]) -> dict[str, Any]:
    """What a header says beside what all say."""
    found = {key: header[key] for key in FURTHER if key in header}
    if not isinstance(found.get("unit", ""), str):
        raise ValueError("its unit is no text")
    if "widths" in found:
        found["widths"] = [_counted(n) for n in found["widths"]]
    ids = found.get("chosen_on", [])
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
        raise ValueError("the items that it was chosen on are no list of ids")
    return found


def _check_plain(name: Any, provenance: Any) -> None:
    if not isinstance(name, str) or not isinstance(provenance, Mapping):
        raise ValueError("its name or provenance is no plain text")
    if not all(isinstance(value, Provenance) for value in provenance.values()):
        raise ValueError("its provenance holds more than plain texts and numbers")


def _counted(number: Any) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"its shape holds {number!r}")
    return number
