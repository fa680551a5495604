"""Load recordings and other results from where they were saved."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from neuroglot.recording.recording import KIND, Recording, checked_recording
from neuroglot.store.damage import DamagedError, reading
from neuroglot.store.results import as_saved, opened

Stored = Recording | xr.Dataset | xr.DataArray


def load_saved(path: str | Path) -> Stored:
    """Load a saved :class:`Recording`, or another result, as it was when it was saved.

    Args:
        path: the folder of the result.

    Raises:
        NeuroglotError: there is no result, it was not finished, it is damaged, or it cannot be
            read for another reason.
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
