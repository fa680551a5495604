"""Write docs/families.md from the tiny models of the tests: ``python -m docs.make_families``."""

from __future__ import annotations

from pathlib import Path

import neuroglot as ng
from neuroglot.models.direct_path import find_direct_path
from tests.families import FAMILIES, family_hf
from tests.testing import tokenizer

HEAD = """# Families of models

Made by `python -m docs.make_families`; a test holds it against the code.

Each family below was built as a tiny model from its own configuration and code in transformers,
with **random weights**; of pretrained ones, Gemma 3 270M was tried. *Verified* means that it
passes what every model must pass when it loads (below). *Tested* means that the suite
holds it against longhand computation: one firing a layer, reading changes no bit, `FFN(x) - bias =
sum of m_i v_i` and gate × up = coefficient added up longhand, the same categories for every batch
size and padding side as for one prompt at a time, and log-probabilities of choices as one token at
a time gives them.

"""

TAIL = """
- **Found by** *table*: the path inside the layer is in `LEAF_PATHS`. *Structure*: nothing is
  written down; it is the one linear map to `d_model` in every layer that another linear map of the
  layer feeds, each position by itself. Both are verified in the same way, and where the table is
  empty, the structure finds the same in every family here.
- **Gated**: the gate is the output of the activation function, the coefficient what goes into the
  down projection. Without gating both are the coefficient.
- **Norm after**: a norm stands between the FFN and the output of its layer, so that a value vector
  does not go into the residual stream as it is. Found out by scaling the coefficients, not by
  name. (OPT with `do_layer_norm_before=False` is OPT-350m.)
- **Direct logit**: the way from the FFN straight to the logits is measured when it is asked for
  (norms, factors and bounds on it), and the parts of a logit add up to it. *No*: the norm is over
  the residual stream itself, or something else than a norm stands before the LM head.

## Verified when a model loads

Every model, also of a family above:

- **The forward pass is the model's own**: a call with nothing but tokens and a mask gives the same
  logits, whatever the model counts positions from; the model without its LM head does to its last
  layer what it does with it.
- **Rows do not see each other**: other prompts in the batch, padding on either side and what stands
  under it do not show; another last token leaves the logits before it alone (causal). Modules that
  turn positions into rotary factors are called with a far position beside the first ones: where
  that changes the factors of the first ones, the length of texts is bounded, as in Phi-3 with long
  rope and in models with dynamic scaling.
- **Neurons are neurons**: each site fires once, with the configured width, for each prompt and
  position; a gate of zero makes the coefficients zero; a change at one position of what goes into
  the FFN changes its coefficients there only; zeroing the coefficients changes the logits, and
  removal of the hooks restores them bit for bit.
- **Prompts that are cut**: whether a prompt can run once for all that follows it is found out on
  two prompts of different lengths; where it cannot, each text runs whole.

A model that fails is refused with what was found. All of it takes at most ten forward passes of a
few tokens each, since what is tried is done to one row of a batch each; only where layers round by
the largest value of the whole batch, as some quantised ones do, there are as many as layers and
more. What was found is remembered, so that a model is verified once
([states](states.md#the-model)).

## Refused, and why

- **Mixtures of experts** (Mixtral, Qwen-MoE, DeepSeek, …): a router chooses other neurons for each
  token.
- **Encoder-decoders** (T5, BART, …), before weights are read: no one stack of layers sees prompt
  and answer.
- **Encoders** (BERT without `is_decoder=True`, …): not causal.
- **State-space models without FFN** (Mamba): their linear maps mix positions. With an FFN in every
  layer (Falcon-H1) they are supported if they leave out padding.
- **Models that see padding on the left** (RWKV, RecurrentGemma, …): results would depend on the
  batch.
- **Gates without a module** (LFM2 calls the activation as a function): there is nothing to hook.
- **Layers of different widths, or an FFN in some layers only.**

Quantised weights can be recorded; `FFNSite.value_vectors()` refuses them.

## Add a family

Load a model of it: most are found by structure. If not, try
`down_projection="model.layers.{i}.mlp.down_proj"`, then add that leaf to `LEAF_PATHS` in
`src/neuroglot/models/finding.py`, and a line with its tiny configuration and its paths to
`tests/families.py`; all tests above then run on it.
"""


def _direct(model: ng.Model) -> str:
    """Whether direct logit attribution is defined."""
    try:
        find_direct_path(model.hf, model.sites)
    except ng.NeuroglotError:
        return "no"
    return "yes"


def page() -> str:
    """The text of docs/families.md."""
    rows = [
        "| family | class | neurons | found by | verified | gated | norm after | direct logit "
        "| tested |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in FAMILIES:
        # Raises where something does not hold; a family that is here is one that the tests run on.
        model = ng.wrap_model(family_hf(name), tokenizer(), name=name)
        about = model.describe()
        path = about["down_projection"].replace(".0.", ".{i}.", 1)
        gated = "yes" if model.sites[0].activation is not None else "no"
        after = "yes" if about["norm_after_ffn"] else "no"
        rows.append(
            f"| {name} | `{about['architecture']}` | `{path}` | {about['found_by']} | yes "
            f"| {gated} | {after} | {_direct(model)} | yes |"
        )
    return HEAD + "\n".join(rows) + "\n" + TAIL


if __name__ == "__main__":
    Path(__file__).with_name("families.md").write_text(page(), encoding="utf-8")
