"""Which feed-forward neurons do languages share, and what do they do?

The public names, which are imported when they are first used (``__init__.pyi`` lists them); see
the README for a tour.
"""

import lazy_loader

__version__ = "0.1.0"
REMOVED = {
    "PromptSets": "NeuronSet, which is fixed or has a set for each prompt",
    "Variant": "NeuronSet.layers, .strongest and ~, with ng.Zero or ng.Scale, in ng.intervene",
    "amplify": "intervene with ng.Scale, or neuroglot.interventions.presets.amplify",
    "compare_tasks": "compare, which also takes recordings of several tasks",
    "deactivate": "intervene with ng.Zero, or neuroglot.interventions.presets.deactivate",
    "doses": "NeuronSet.strongest(share), one condition for each share, in ng.intervene",
    "layer_bands": "NeuronSet.layers(0, 1, ...), one condition for each band, in ng.intervene",
    "open": "load",
    "sweep_thresholds": "classify(recording, thresholds=...)",
    "tasks": "list_tasks",
}

_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name in REMOVED:
        raise AttributeError(f"neuroglot.{name} is gone; use neuroglot.{REMOVED[name]}.")
    return _public(name)
