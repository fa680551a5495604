"""Write the files of the embedded tasks: ``python -m training.embedded_tasks.write``."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Iterator
from typing import Any

from neuroglot.tasks.catalogue import EMBEDDED, TaskEntry, catalogue, embedded_file
from neuroglot.tasks.wording import TEMPLATES
from training.embedded_tasks import editing, facts, inference

MAKERS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "facts": facts.items,
    "inference": inference.items,
    "editing": editing.items,
}


def embedded() -> Iterator[tuple[TaskEntry, str]]:
    """Every embedded task in every template."""
    for entry in catalogue().values():
        if entry.dataset is None:
            for template in TEMPLATES:
                yield entry, template


def made(entry: TaskEntry, template: str) -> list[dict[str, Any]]:
    """The items of a task, as they are defined."""
    return MAKERS[entry.reader](template, **entry.direction)


def main() -> None:
    """Write one file for each task and template."""
    EMBEDDED.mkdir(exist_ok=True)
    for entry, template in embedded():
        lines = (json.dumps(item, ensure_ascii=False) + "\n" for item in made(entry, template))
        content = lzma.compress("".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME)
        embedded_file(entry.name, template).write_bytes(content)


if __name__ == "__main__":
    main()
