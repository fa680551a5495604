"""Deactivate every category on the embedded models, and write ``docs/deactivation.md``.

``python -m docs.make_deactivation`` takes about half an hour on four cores. Everything is kept in
``--out``; the same command goes on where it stopped, and only writes the page if nothing is left.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import xarray as xr

import neuroglot as ng

MODELS = ("base", "aligned")
TASKS = ("facts", "inference", "editing_en_xx", "editing_xx_en")
TEMPLATES = ("native", "shared")
N_ITEMS = 100
FULL = ("facts", "native")  # the task on which the variants are tried


def recorded(model: ng.Model, task: ng.ParallelTask, out: Path) -> ng.Recording:
    """The task's recording, made once."""
    return ng.record(model, task, out / "recording")


def main_results(out: Path) -> dict[tuple[str, str, str], xr.Dataset]:
    """Every category beside its controls, by model, task and template."""
    found = {}
    for name in MODELS:
        model = ng.load_model(f"embedded/{name}")
        for task_name, template in itertools.product(TASKS, TEMPLATES):
            task = ng.load_task(task_name, limit=N_ITEMS, template=template)
            folder = out / f"{name}-{task_name}-{template}"
            recording = recorded(model, task, folder)
            found[name, task_name, template] = ng.deactivate(model, task, recording, out=folder)
    return found


def variant_results(out: Path) -> dict[tuple[str, str], xr.Dataset]:
    """Parts of the all-shared neurons, and other ways to edit them, by model and variant."""
    found = {}
    for name in MODELS:
        model = ng.load_model(f"embedded/{name}")
        task = ng.load_task(FULL[0], limit=N_ITEMS, template=FULL[1])
        folder = out / f"{name}-{FULL[0]}-{FULL[1]}"
        recording = recorded(model, task, folder)
        variants = {
            "dose": ng.doses(),
            "bands": ng.layer_bands(model, model.n_layers),
            "keep only": (ng.Variant(keep_only=True),),
            "fixed": (ng.Variant(membership=0.5),),
            "by effective": ng.doses(0.1, 0.25, 0.5, rank_by="effective"),
        }
        for kind, chosen in variants.items():
            found[name, kind] = ng.deactivate(
                model, task, recording, categories=["all_shared"], variants=chosen, out=folder
            )
        found[name, "amplify"] = ng.amplify(model, task, recording, out=folder)
    return found


def main() -> None:
    """Run what is left, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("deactivation-results"))
    out = parser.parse_args().out
    began = time.perf_counter()
    main_results(out)
    variant_results(out)
    print(f"{(time.perf_counter() - began) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
