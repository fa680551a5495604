"""Open what was saved: a recording, or another result."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from neuroglot.recording.recording import KIND, Recording, checked_recording
from neuroglot.store.damage import DamagedError, reading
from neuroglot.store.results import as_saved, opened

Stored = Recording | xr.Dataset | xr.DataArray


def load(path: str | Path) -> Stored:
    """Reload anything saved: a :class:`Recording`, or another result as it was.

    A recording is read when it is used; other results are read at once.

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
