"""The file of a neuron set: one line of JSON, then packed bits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuroglot.errors import NeuroglotError, shown
from neuroglot.neurons.members import Mask
from neuroglot.outputs import write_file

Provenance = str | int | float
FORMAT = "neuroglot neuron set 1"
LONGEST_HEADER = 2**26
FURTHER = ("widths", "unit", "chosen_on")
"""Entries that a header has only where they differ from those of most sets."""


def write_set(
    path: str | Path,
    mask: Mask,
    name: str,
    provenance: Mapping[str, Provenance],
    further: Mapping[str, Any],
    *,
    overwrite: bool,
) -> None:
    """Write a mask (layer, neuron) with its name, completely or not at all.

    Args:
        path: the path of the file.
        mask: the neurons of the set (layer, neuron).
        name: the name of the set.
        provenance: where the set comes from.
        further: entries of :data:`FURTHER`.
        overwrite: whether to replace an existing file.

    Raises:
        NeuroglotError: the file exists and ``overwrite`` is not set, or it cannot be written.
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
    except ValueError as error:  # also raised for texts that cannot be encoded
        raise NeuroglotError(f"neuron set {shown(name)}: {error}.") from error
    try:
        write_file(out, line + b"\n" + bits)
    except OSError as error:
        raise NeuroglotError(f"cannot write {str(out)!r}: {error}.") from error


def _as_file(path: str | Path) -> Path:
    """The path of a file.

    Raises:
        NeuroglotError: there is a folder at the path, or it is not a valid path.
    """
    file = Path(path)
    try:
        if file.is_dir():
            raise NeuroglotError(f"{str(path)!r} is a folder; a neuron set is one file.")
    except (OSError, ValueError) as error:
        raise NeuroglotError(f"cannot use the path {str(path)!r}: {error}.") from error
    return file


def read_set(path: str | Path) -> tuple[Mask, str, dict[str, Provenance], dict[str, Any]]:
    """Read a file that :func:`write_set` wrote.

    Returns:
        The mask (layer, neuron), the name, the provenance and the entries of :data:`FURTHER`.

    Raises:
        NeuroglotError: the file does not exist, or its content is damaged or contradicts itself.
    """
    file = _as_file(path)
    try:
        with file.open("rb") as opened:
            line = opened.readline(LONGEST_HEADER)
            bits = opened.read()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise NeuroglotError(f"cannot read {str(file)!r}: {error}.") from error
    try:
        return _parsed(line, bits)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise NeuroglotError(
            f"{str(file)!r} is not an intact neuron set ({shown(str(error))}). Save it again, or "
            "get another copy."
        ) from error


def _parsed(line: bytes, bits: bytes) -> tuple[Mask, str, dict[str, Provenance], dict[str, Any]]:
    header = json.loads(line.decode())
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"its first line is not a JSON header of format {FORMAT!r}")
    n_layers, n_neurons = (_counted(n) for n in header["shape"])
    n_bytes = -(-n_neurons // 8)
    if len(bits) != n_layers * n_bytes:
        raise ValueError(f"{len(bits)} bytes, expected {n_layers * n_bytes} from its shape")
    if hashlib.sha256(bits).hexdigest() != header["sha256"]:
        raise ValueError("the checksum does not match")
    packed = np.frombuffer(bits, np.uint8).reshape(n_layers, n_bytes)
    mask = np.unpackbits(packed, axis=1, count=n_neurons).astype(np.bool_)
    # Bits that are set beyond the last neuron count here, but are not in the mask.
    sizes = np.bitwise_count(packed).sum(axis=1).tolist()
    if header["sizes"] != sizes or sum(sizes) != mask.sum():
        raise ValueError("the numbers of neurons in its header are not those of its bits")
    name, provenance = header["name"], header["provenance"]
    _check_plain(name, provenance)
    return mask, name, provenance, _further(header)


def _further(header: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of :data:`FURTHER` that a header has."""
    further = {key: header[key] for key in FURTHER if key in header}
    if not isinstance(further.get("unit", ""), str):
        raise ValueError("its unit is not a text")
    for width in further.get("widths", ()):
        _counted(width)
    ids = further.get("chosen_on", [])
    if not isinstance(ids, list) or not all(isinstance(item, str) for item in ids):
        raise ValueError("the items on which it was chosen are not a list of ids")
    return further


def _check_plain(name: Any, provenance: Any) -> None:
    if not isinstance(name, str) or not isinstance(provenance, Mapping):
        raise ValueError("its name or provenance is not plain text")
    if not all(isinstance(value, Provenance) for value in provenance.values()):
        raise ValueError("its provenance holds more than plain texts and numbers")


def _counted(number: Any) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"its shape holds {number!r}")
    return number
