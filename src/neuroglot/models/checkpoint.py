"""Checks of a checkpoint before its weights are read: where they are, and in which format."""

from __future__ import annotations

import json
from pathlib import Path, PureWindowsPath
from typing import Any

from transformers import PreTrainedConfig
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_INDEX_NAME
from transformers.utils.hub import cached_file, extract_commit_hash

from neuroglot.errors import NeuroglotError, shown

SAFE = ".safetensors"
ADAPTERS = "adapter_config.json"


def commit_of(source: str | Path, options: dict[str, Any]) -> str | None:
    """The commit on the Hub that a model is read from; ``None`` for a folder."""
    file = None if Path(source).is_dir() else _hub_file(source, CONFIG_NAME, options)
    return None if file is None else extract_commit_hash(str(file), None)


def _hub_file(source: str | Path, name: str, options: dict[str, Any]) -> Path | None:
    """Download a file of a Hub repository; ``None`` if there is no such file."""
    path = cached_file(
        source,
        name,
        revision=options["revision"],
        token=options["token"],
        _raise_exceptions_for_missing_entries=False,
    )
    return Path(path) if path else None


def check_weight_files(
    source: str | Path, config: PreTrainedConfig, options: dict[str, Any], *, allow_pickle: bool
) -> None:
    """Refuse weights outside of their folder and pickled weights, before any weights are read.

    Args:
        source: a folder, or a Hub id.
        config: configuration of the model there.
        options: revision and token for the Hub.
        allow_pickle: whether pickled weights may be read.

    Raises:
        NeuroglotError: an index names files outside of its folder, weights are pickled although
            that is not allowed, or a Hub repository holds adapters beside its model.
    """
    named = getattr(config, "transformers_weights", None)
    names = [SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_INDEX_NAME]
    if named is not None:
        check_place(f"{source}/config.json", named)
        names += [named] if named.endswith(".json") else []
        if not allow_pickle and not named.endswith((SAFE, f"{SAFE}.index.json")):
            raise NeuroglotError(
                f"the configuration of {str(source)!r} names the weights {shown(named)}, which are "
                "not safetensors; allow_pickle=True reads pickled ones, which can run code."
            )
    folder = Path(source)
    if folder.is_dir():
        named_files = (folder / name for name in names)
        files = {*folder.glob("*.index*.json"), *filter(Path.is_file, named_files)}
    else:
        if _hub_file(source, ADAPTERS, options) is not None:
            raise NeuroglotError(
                f"the repository {str(source)!r} holds adapters ({ADAPTERS}); download it "
                "(huggingface_hub.snapshot_download) and name its folder."
            )
        downloaded = (_hub_file(source, name, options) for name in names)
        files = {file for file in downloaded if file is not None}
    for file in sorted(files):
        check_index(file, allow_pickle=allow_pickle)


def check_index(file: Path, *, allow_pickle: bool) -> None:
    """Refuse an index of weights that names files outside of its folder, or pickled files.

    Raises:
        NeuroglotError: the index names such a file, or is not an index.
    """
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise NeuroglotError(f"cannot read the index {str(file)!r}: {error}.") from error
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict):
        if SAFE in file.name or file.name == WEIGHTS_INDEX_NAME:
            raise NeuroglotError(
                f"{str(file)!r} is not an index of weights: expected a 'weight_map' from their "
                "names to files."
            )
        return  # It is an index of something else.
    for place in places.values():
        check_place(str(file), place)
        if SAFE in file.name and not place.endswith(SAFE) and not allow_pickle:
            raise NeuroglotError(
                f"{str(file)!r} names {shown(place)}, expected files that end in {SAFE!r}; "
                "allow_pickle=True reads pickled ones, which can run code."
            )


def check_place(where: str, place: object) -> None:
    """Refuse the name of a file that is outside of the folder of the file that names it.

    Raises:
        NeuroglotError: the name is not a text, is empty or absolute, has a drive, or contains
            ``..``.
    """
    # Windows accepts both kinds of slashes, so its rules cover those of other systems.
    path = PureWindowsPath(place) if isinstance(place, str) else None
    if path is None or not path.name or path.anchor or ".." in path.parts:
        raise NeuroglotError(
            f"{where!r} names the weights {shown(place)}, expected a file in its own folder."
        )
