"""The two values of a neuron that can be looked at, by name; nothing heavy is imported here."""

from __future__ import annotations

from typing import Literal

SiteKind = Literal["gate", "coefficient"]
SITE_KINDS: tuple[SiteKind, ...] = ("gate", "coefficient")
