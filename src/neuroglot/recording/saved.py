"""Load recordings and other results from where they were saved."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from neuroglot.recording.recording import KIND, Recording, checked_recording
from neuroglot.store.damage import DamagedError, reading
from neuroglot.store.results import as_saved, opened

Stored = Recording | xr.Dataset | xr.DataArray


def load(path: str | Path) -> Stored:
    """Load a saved :class:`Recording`, or another result, as it was when it was saved.

    The data of a recording are read when they are used; other results are read at once.

    Args:
        path: the folder of the result.

    Raises:
        NeuroglotError: there is no result, it was not finished, it is damaged, or it cannot be
            read for another reason.

    Examples:
        >>> import tempfile
        >>> import neuroglot as ng
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     recording = ng.record(ng.load_model("embedded/base"), task, out=f"{folder}/facts")
        ...     ng.load(f"{folder}/facts")
        Recording(embedded/base on facts: 4 items, 2 languages, 6 layers of 768 neurons)
    """
    data = opened(path)
    if data.attrs.get("kind") != KIND:
        return as_saved(path, data)
    with reading(Path(path)):
        if "active" not in data:
            raise DamagedError(Path(path), "a recording without 'active'")
        try:
            return checked_recording(data)
        except ValueError as error:
            raise DamagedError(Path(path), str(error)) from error
