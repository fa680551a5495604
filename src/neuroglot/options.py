"""Options that travel together: what a function does with those that it is given.

A class of options is a frozen dataclass that checks itself and imports nothing heavy. The flags of
the command line are made from its fields, with the help that their metadata hold; see
``neuroglot.cli.options``.
"""

from __future__ import annotations

from typing import Any

from neuroglot.errors import NeuroglotError


def options_of(given: Any, kind: type[Any], name: str) -> Any:
    """The options that a user passed; where there are none, those that hold by default.

    Args:
        given: an object of the class, or ``None``.
        kind: the class.
        name: of the argument.

    Raises:
        NeuroglotError: it is something else.
    """
    if given is None:
        return kind()
    if not isinstance(given, kind):
        raise NeuroglotError(
            f"{name}= is a {type(given).__name__}; expected {name}=ng.{kind.__name__}(…)."
        )
    return given
