"""Rows from the Hugging Face Hub, loaded with the package ``datasets`` (an extra)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from neuroglot.errors import NeuroglotError


def load_rows(options: Mapping[str, str]) -> Iterable[dict[str, Any]]:
    """The rows that :func:`datasets.load_dataset` loads with these options.

    Raises:
        NeuroglotError: ``datasets`` is not installed, or cannot load the rows.
    """
    try:
        import datasets  # noqa: PLC0415 (an extra)
        from datasets.exceptions import DatasetsError  # noqa: PLC0415
    except ImportError as error:
        raise NeuroglotError(
            "reading from the Hub needs the package datasets: pip install datasets 'fsspec[http]', "
            "or '.[datasets]' in neuroglot's own folder. Or pass the folder with the published "
            "files as path (--path)."
        ) from error
    # This imports transformers, which takes long and which no local file needs.
    from neuroglot.quiet import without_messages  # noqa: PLC0415

    try:
        with without_messages():
            return cast("Iterable[dict[str, Any]]", datasets.load_dataset(**options))
    except StopIteration:
        return []  # datasets raises StopIteration for an empty file
    except (OSError, ValueError, RuntimeError, ImportError, DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise NeuroglotError(
            f"cannot load {options.get('data_files', options['path'])!r} with datasets: {reason} "
            "Without a network, pass the folder with the published files as path (--path)."
        ) from error
