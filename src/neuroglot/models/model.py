"""A model that is ready to be looked into: weights, tokenizer and verified sites."""

from __future__ import annotations

import re
import warnings
from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from neuroglot.errors import NeuroglotError, is_whole_number, listed
from neuroglot.models import hooks
from neuroglot.models.ffn import FFN, FFNNeurons
from neuroglot.models.finding import find_sites, refuse_encoder_decoder, sites_at
from neuroglot.models.forward import context_sizes, first_position
from neuroglot.models.hooks import Reader
from neuroglot.models.identity import Identity, identity
from neuroglot.models.lineage import lineage
from neuroglot.models.probing import input_device
from neuroglot.models.remembered import Remembered, key_of, recall, remember
from neuroglot.models.running import Running
from neuroglot.models.sites import FFNSite
from neuroglot.models.state import (
    operating,
    ready,
    refuse_adapters,
    refuse_compiled,
    training,
)
from neuroglot.models.tokenization import (
    PaddingSide,
    Tokenization,
    check_tokenization,
    describe_tokenization,
)
from neuroglot.models.turns import Turn, hooking, taking_turn, turn_of
from neuroglot.models.units import Units
from neuroglot.models.verify import Verified, verify
from neuroglot.notebook import as_html

# Tokenizers without a limit report a number of this order.
NO_LIMIT = 10**9
BatchSize = int | Literal["auto"]
UNITS: dict[str, type[Units]] = {FFN: FFNNeurons}
"""Kinds of units by name."""


@dataclass(frozen=True)
class Model:
    """A decoder with its tokenizer and its feed-forward sites.

    Attributes:
        hf: the Hugging Face model, in evaluation mode.
        tokenizer: its tokenizer.
        sites: one FFN a layer, from the input side.
        name: Hub id, folder or name of an embedded model.
        revision: commit of the Hub, where there is one.
        tokenization: how prompts become tokens.
        norm_after_ffn: whether a norm stands between the FFN and the output of its layer.
        shares_cache: whether a prompt need run only once for all its choices.
        longest: the most tokens of a text that leaves the others of its batch alone, where rotary
            factors depend on the longest one; else ``None``.
        noise: how much other prompts of a batch change the logits of a row, relative to their size;
            0 but for layers that are quantised as they run.
        batch_size: prompts in a batch; ``"auto"`` fills a budget of tokens. Either is halved where
            memory runs out.

    Raises:
        NeuroglotError: ``batch_size`` is neither ``"auto"`` nor a whole number from 1.
    """

    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    sites: tuple[FFNSite, ...]
    name: str
    revision: str | None = None
    tokenization: Tokenization = field(default_factory=Tokenization)
    norm_after_ffn: bool = False
    shares_cache: bool = False
    longest: int | None = None
    noise: float = 0.0
    batch_size: BatchSize = "auto"

    def __post_init__(self) -> None:
        check_batch_size(self.batch_size)

    def with_batch_size(self, batch_size: BatchSize) -> Model:
        """The same model, which runs so many prompts in a batch; weights are not copied."""
        return replace(self, batch_size=batch_size)

    def __repr__(self) -> str:
        """One line; ``describe()`` says more."""
        return (
            f"Model({self.name!r}, {type(self.hf).__name__}, {self.n_layers} layers of "
            f"{self.n_neurons} neurons, {self.dtype} on {self.device})"
        )

    def _repr_html_(self) -> str:
        return as_html(self.name, self.describe())

    @property
    def padding_side(self) -> PaddingSide:
        """Where batches are padded."""
        return self.tokenization.padding_side or cast("PaddingSide", self.tokenizer.padding_side)

    @property
    def n_layers(self) -> int:
        """Number of feed-forward layers."""
        return len(self.sites)

    @property
    def n_neurons(self) -> int:
        """Neurons of one layer."""
        return self.sites[0].n_neurons

    @property
    def dtype(self) -> str:
        """Number type of the weights, by name."""
        return str(self.hf.dtype).removeprefix("torch.")

    @property
    def n_embeddings(self) -> int:
        """Tokens that the model knows."""
        return next(self.hf.get_input_embeddings().parameters()).shape[0]

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return input_device(self.hf)

    @property
    def running(self) -> Running:
        """What the underlying module runs at the moment, whichever model it is wrapped by."""
        return turn_of(self.hf).running

    @property
    def context_length(self) -> int | None:
        """The most tokens that a prompt may have, or ``None`` without a limit.

        Beyond :attr:`longest` a text would change what the model computes for others of its batch,
        and for what was cached of its own beginning.
        """
        limits: list[int | None] = [self.tokenizer.model_max_length, self.longest]
        limits += [size - first_position(self.hf) for size in context_sizes(self.hf)]
        known = [int(limit) for limit in limits if limit is not None and limit < NO_LIMIT]
        return min(known, default=None)

    @property
    def described_tokenization(self) -> dict[str, Any]:
        """What results say of how prompts become tokens."""
        return describe_tokenization(self.tokenizer, self.tokenization, self.context_length)

    @property
    def identity(self) -> Identity:
        """Checksums of weights, configuration and tokenizer, as they are now.

        Raises:
            NeuroglotError: a weight has no values, or another thread is in a block that edits the
                model.
        """
        with taking_turn(self.hf) as turn:
            known = {} if turn.identities is None else turn.identities
            key = id(self.tokenizer)
            if key not in known:
                known[key] = identity(self.hf, self.tokenizer)
            return known[key]

    @property
    def fingerprint(self) -> str:
        """One checksum over :attr:`identity`: tells two models of one name apart."""
        return self.identity.whole

    @property
    def lineage(self) -> tuple[str, ...]:
        """Weights' checksums of the checkpoints that this one continues, the oldest first."""
        return lineage(self.hf)

    def operating(self) -> AbstractContextManager[Turn]:
        """Within the block, the model computes what it would in a fresh process, in one thread.

        Evaluation mode is on, autocast and another default device are off, other threads wait.

        Raises:
            NeuroglotError: the model was compiled, has adapters that are not merged, had modules
                replaced, or has a hook of somebody else that changes values; PyTorch's default
                number type is not float32; or another thread is in a block that edits the model.
        """
        return operating(self.hf, self.sites)

    def training(self) -> AbstractContextManager[None]:
        """Within the block, the model or adapters in it are trained, and other threads wait.

        Raises:
            NeuroglotError: as :meth:`operating`.
        """
        return training(self.hf)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Within the block, user's code runs the model, in evaluation mode and as it was wrapped.

        Raises:
            NeuroglotError: as :meth:`operating`.
        """
        with taking_turn(self.hf, is_block=True), ready(self.hf, self.sites):
            yield

    def units(self, name: str = FFN) -> Units:
        """The units of one kind, to be read and written.

        Args:
            name: of the kind, as sets of such units have it as their ``unit``.

        Raises:
            NeuroglotError: the model has no such units.
        """
        if name not in UNITS:
            raise NeuroglotError(
                f"{self.name!r} has no units that are called {name!r}; there are {listed(UNITS)}."
            )
        return UNITS[name](self.hf, self.sites)

    @contextmanager
    def reading_stream(self, read: Reader) -> Iterator[None]:
        """Within the block, ``read(n, values)`` sees the residual stream after ``n`` layers.

        Values are (prompt, position, d_model).
        """
        with hooking(self.hf), hooks.reading_stream([site.block for site in self.sites], read):
            yield

    @contextmanager
    def asking(
        self, prompts: Sequence[Hashable] | None = None, lengths: Tensor | None = None
    ) -> Iterator[None]:
        """Within the block, forward passes run these prompts, one a row.

        Args:
            prompts: what tells them apart: item and language.
            lengths: tokens of each (row,), where more than the prompts run, or less.
        """
        with self.running.these(prompts, lengths):
            yield

    def require_unedited(self) -> None:
        """Refuse a model that is being edited.

        Raises:
            NeuroglotError: it names the edits.
        """
        if self.running.edits:
            raise NeuroglotError(
                f"the model is being edited ({'; '.join(self.running.edits)}); leave the block of "
                "neuroglot.edit first."
            )

    def describe(self) -> dict[str, Any]:
        """What was found, for people and for JSON."""
        first = self.sites[0]
        return {
            "model": self.name,
            "revision": self.revision,
            "architecture": type(self.hf).__name__,
            "parameters": sum(p.numel() for p in self.hf.parameters()),
            "dtype": self.dtype,
            "device": str(self.device),
            "layers": self.n_layers,
            "neurons_per_layer": self.n_neurons,
            "down_projection": first.path,
            "found_by": first.found_by,
            "gate": "activation module" if first.activation is not None else "as coefficient",
            "norm_after_ffn": self.norm_after_ffn,
            "shares_cache": self.shares_cache,
            "context_length": self.context_length,
            "factors_change_beyond": self.longest,
            "changed_by_others": self.noise,
            **self.described_tokenization,
        }


def check_batch_size(batch_size: object) -> None:
    """Refuse what is no number of prompts in a batch.

    Raises:
        NeuroglotError: it is neither ``"auto"`` nor a whole number from 1.
    """
    if batch_size != "auto" and not is_whole_number(batch_size, 1):
        raise NeuroglotError(f"batch_size={batch_size!r}: expected 'auto' or a number from 1.")


def wrap_model(
    hf: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    name: str | None = None,
    revision: str | None = None,
    down_projection: str | None = None,
    tokenization: Tokenization | None = None,
    batch_size: BatchSize = "auto",
) -> Model:
    """Make a loaded Hugging Face model ready: find its sites and verify them.

    Args:
        hf: a dense decoder; put into evaluation mode.
        tokenizer: its tokenizer; a missing padding token is replaced by the end token.
        name: what to call it in results; by default the name it was loaded by.
        revision: what to record as its revision.
        down_projection: path of the down projections with ``{i}`` for the layer, where it is not
            known.
        tokenization: how prompts become tokens; by default as the tokenizer does.
        batch_size: prompts in a batch; ``"auto"`` fills a budget of tokens.

    Raises:
        NeuroglotError: no sites were found, or they are not what they seem.
    """
    chosen = Tokenization() if tokenization is None else tokenization
    refuse_compiled(hf)
    for what, given, expected in (
        ("hf", hf, PreTrainedModel),
        ("tokenizer", tokenizer, PreTrainedTokenizerBase),
    ):
        if not isinstance(given, expected):
            refuse_adapters(given)
            raise NeuroglotError(
                f"{what} is a {type(given).__name__}; expected a {expected.__name__} of "
                "transformers."
            )
    check_batch_size(batch_size)
    check_tokenization(tokenizer, chosen)
    refuse_encoder_decoder(hf.config)
    with taking_turn(hf) as turn:
        if turn.running.edits:
            raise NeuroglotError(
                f"this {type(hf).__name__} is being edited ({'; '.join(turn.running.edits)}), and "
                "would be measured so; leave the block of neuroglot.edit first."
            )
        hf.train(mode=False)
        model = _wrapped(hf, tokenizer, name, revision, down_projection, chosen)
        return model.with_batch_size(batch_size)


def _wrapped(
    hf: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str | None,
    revision: str | None,
    down_projection: str | None,
    tokenization: Tokenization,
) -> Model:
    """As :func:`wrap_model`, of a model that nobody else runs."""
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise NeuroglotError(
                "the tokenizer has neither a padding nor an end token; set tokenizer.pad_token."
            )
        tokenizer.pad_token = tokenizer.eos_token
    with operating(hf):
        found, verified = _looked_into(hf, down_projection)
        model = Model(
            hf,
            tokenizer,
            found,
            name or hf.config.name_or_path or type(hf).__name__,
            revision,
            tokenization,
            **vars(verified),
        )
    _warn_of_batches(model)
    return model


def _warn_of_batches(model: Model) -> None:
    """Tell of texts that the model could read, but not beside others, and of rows that differ."""
    if model.noise:
        warnings.warn(
            f"{model.name} has layers that are quantised by the largest value of a whole batch, so "
            f"that other prompts change the logits of one by {model.noise:.2%} of their size; "
            "results depend a little on the batch size.",
            stacklevel=3,
        )
    without = replace(model, longest=None).context_length
    if model.longest is not None and (without is None or model.longest < without - 1):
        warnings.warn(
            f"the rotary factors of {model.name} depend on the longest text of a batch, and change "
            f"where one has more than {model.longest} tokens; longer texts are refused.",
            stacklevel=3,
        )


def _looked_into(hf: PreTrainedModel, path: str | None) -> tuple[tuple[FFNSite, ...], Verified]:
    """The sites of a model, and what its verification found, now or when it was loaded before.

    Raises:
        NeuroglotError: no sites were found, or they are not what they seem.
    """
    key = key_of(hf, path)
    known = recall(key)
    if known is not None:
        return sites_at(hf, known.path, known.found_by), known.verified
    found = find_sites(hf, path)
    widths = {site.n_neurons for site in found}
    if len(widths) > 1:
        raise NeuroglotError(f"layers of different widths are not supported: {sorted(widths)}.")
    verified = verify(hf, found)
    # Some models set what they compute when they run for the first time, as BigBird does.
    if key == key_of(hf, path):
        # The layer is the first number in a path that nobody named.
        where = path or re.sub(r"\b0\b", "{i}", found[0].path, count=1)
        remember(key, Remembered(where, found[0].found_by, verified))
    return found, verified
