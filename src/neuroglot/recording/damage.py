"""Tell damaged folders from sound ones: nothing that is missing or changed is taken for data.

Chunks hold checksums of their own. How they are read (shape, number type, chunks, codecs, names of
dimensions) stands in the ``zarr.json`` of each array, so the folder holds a checksum of each.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from pathlib import Path
from typing import Any

import xarray as xr
import zarr
from xarray.backends.common import BackendArray
from xarray.core import indexing

from neuroglot.errors import NeuroglotError

METADATA = "zarr.json"
LAYOUT = "layout"  # attribute with the checksums of the arrays' metadata
# What Zarr, its codecs and xarray raise for files that are cut, changed or gone.
DAMAGE = (
    *(OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, AssertionError, MemoryError, EOFError),
)


def damaged(path: Path, error: Exception) -> NeuroglotError:
    """The error for a result that cannot be read."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return NeuroglotError(
        f"cannot read a result from {str(path)!r}: it is damaged ({reason}). Make it again with "
        "the same settings in the same folder, which keeps what is whole of a recording or an "
        "evaluation; or pass overwrite=True (--overwrite)."
    )


def read_attributes(path: Path) -> dict[str, Any]:
    """The attributes of a saved result.

    Raises:
        OSError | ValueError | RecursionError: there are none.
    """
    metadata = json.loads((path / METADATA).read_text(encoding="utf-8"))
    attributes = metadata.get("attributes") if isinstance(metadata, dict) else None
    if not isinstance(attributes, dict):
        raise ValueError(f"{METADATA} holds no attributes")
    return attributes


def layout_of(path: Path) -> dict[str, str]:
    """A checksum of how each array is kept, by name."""
    return {
        file.parent.name: hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        for file in sorted(path.glob(f"*/{METADATA}"))
    }


def mark_layout(path: Path) -> None:
    """Write down how the arrays are kept, now that all are there."""
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    group.attrs[LAYOUT] = layout_of(path)


def check_layout(path: Path) -> None:
    """Arrays must be kept as they were when they were made; earlier results do not say how.

    An array that is not marked was being made when its writer was killed, and is made again.

    Raises:
        ValueError: naming an array.
    """
    marked = read_attributes(path).get(LAYOUT)
    if marked is None:
        return
    found = layout_of(path)
    for name, checksum in dict(marked).items():
        if found.get(name) != checksum:
            raise ValueError(f"{name}/{METADATA} is not as it was written")


def require_chunks(path: Path, but: str | None = None) -> None:
    """A chunk that is not there would be read as zeros.

    Args:
        path: of the result.
        but: an array that may lack chunks.

    Raises:
        FileNotFoundError: it names the variable.
    """
    for name, array in zarr.open_group(path, mode="r", use_consolidated=False).arrays():
        if name == but:
            continue
        folder = path / name
        files = {str(x.relative_to(folder)) for x in folder.rglob("*") if x.is_file()}
        grid = [-(-n // size) for n, size in zip(array.shape, array.chunks, strict=True)]
        # Counted before they are listed: damaged metadata may claim any number.
        missing = math.prod(grid) - len(files - {METADATA})
        if missing <= 0:
            places = itertools.product(*map(range, grid))
            missing = len({array.metadata.encode_chunk_key(place) for place in places} - files)
        if missing:
            raise FileNotFoundError(
                f"{missing} of {math.prod(grid)} chunks of {name!r} are missing"
            )


class _Guarded(BackendArray):
    """Values that are read when they are used, and then may turn out to be damaged."""

    def __init__(self, variable: xr.Variable, path: Path) -> None:
        self.variable, self.path = variable, path
        self.shape, self.dtype = variable.shape, variable.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        outer = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, outer, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        try:
            return self.variable[key].to_numpy()
        except DAMAGE as error:
            raise damaged(self.path, error) from error


def guarded(data: xr.Dataset, path: Path) -> xr.Dataset:
    """The dataset, whose variables say so in one line where they turn out to be damaged."""
    lazy = {
        name: xr.Variable(
            array.dims,
            indexing.LazilyIndexedArray(_Guarded(array.variable, path)),
            array.attrs,
            array.encoding,
        )
        for name, array in data.data_vars.items()
    }
    return data.assign(lazy)
