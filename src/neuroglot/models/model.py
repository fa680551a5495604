"""A model that is ready for use: weights, tokenizer and verified feed-forward sites."""

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

# Tokenizers without a limit report a number larger than this.
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
        sites: the FFN of each layer, in order from the input.
        name: Hub id, folder or name of an embedded model.
        revision: commit on the Hub, if there is one.
        tokenization: how prompts become tokens.
        norm_after_ffn: whether a norm stands between the FFN and the output of its layer.
        shares_cache: whether a prompt has to run only once for all its choices.
        longest: the most tokens that a text may have without changing the results of other texts in
            its batch; ``None`` unless rotary factors depend on the longest text.
        noise: how much other prompts in a batch change the logits of a row, relative to their size;
            0 unless layers quantise their inputs as they run.
        batch_size: prompts in a batch; ``"auto"`` fills a budget of tokens. Batches that do not fit
            into memory are halved in either case.

    Raises:
        NeuroglotError: ``batch_size`` is neither ``"auto"`` nor a whole number from 1.

    Examples:
        >>> import neuroglot as ng
        >>> model = ng.load_model("embedded/base")
        >>> model.n_layers, model.n_neurons, model.context_length
        (6, 768, 128)
        >>> model.with_batch_size(4).batch_size
        4
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
        """The same model with another number of prompts in a batch; weights are shared."""
        return replace(self, batch_size=batch_size)

    def __repr__(self) -> str:
        """One line; ``describe()`` gives details."""
        return (
            f"Model({self.name!r}, {type(self.hf).__name__}, {self.n_layers} layers of "
            f"{self.n_neurons} neurons, {self.dtype} on {self.device})"
        )

    def _repr_html_(self) -> str:
        return as_html(self.name, self.describe())

    @property
    def padding_side(self) -> PaddingSide:
        """The side on which batches are padded."""
        return self.tokenization.padding_side or cast("PaddingSide", self.tokenizer.padding_side)

    @property
    def n_layers(self) -> int:
        """Number of feed-forward layers."""
        return len(self.sites)

    @property
    def n_neurons(self) -> int:
        """Number of neurons in each layer."""
        return self.sites[0].n_neurons

    @property
    def dtype(self) -> str:
        """Name of the weights' number type, such as ``"float32"``."""
        return str(self.hf.dtype).removeprefix("torch.")

    @property
    def n_embeddings(self) -> int:
        """Number of tokens for which the model has embeddings."""
        return next(self.hf.get_input_embeddings().parameters()).shape[0]

    @property
    def device(self) -> torch.device:
        """The device of the model's inputs."""
        return input_device(self.hf)

    @property
    def running(self) -> Running:
        """What runs at the moment, shared by all models that wrap the same Hugging Face module."""
        return turn_of(self.hf).running

    @property
    def context_length(self) -> int | None:
        """The most tokens that a prompt may have, or ``None`` if there is no limit.

        It is at most :attr:`longest`: a longer text would change the results of other texts in its
        batch, and would not fit the keys and values that were cached for its own beginning.
        """
        limits: list[int | None] = [self.tokenizer.model_max_length, self.longest]
        limits += [size - first_position(self.hf) for size in context_sizes(self.hf)]
        return min(
            (int(size) for size in limits if size is not None and size < NO_LIMIT), default=None
        )

    @property
    def described_tokenization(self) -> dict[str, Any]:
        """The attributes of results that describe how prompts become tokens."""
        return describe_tokenization(self.tokenizer, self.tokenization, self.context_length)

    @property
    def identity(self) -> Identity:
        """Checksums of the current weights, configuration and tokenizer.

        Raises:
            NeuroglotError: a weight has no values, or another thread is in a block that edits the
                model.
        """
        with taking_turn(self.hf) as turn:
            computed = {} if turn.identities is None else turn.identities
            key = id(self.tokenizer)
            if key not in computed:
                computed[key] = identity(self.hf, self.tokenizer)
            return computed[key]

    @property
    def fingerprint(self) -> str:
        """One checksum over :attr:`identity`, which distinguishes models of the same name."""
        return self.identity.whole

    @property
    def lineage(self) -> tuple[str, ...]:
        """Checksums of the weights of this model's earlier checkpoints, the oldest first."""
        return lineage(self.hf)

    def operating(self) -> AbstractContextManager[Turn]:
        """Within the block, the model computes what it would in a fresh process, in one thread.

        Evaluation mode is on, autocast and any default device other than the CPU are off, and other
        threads wait.

        Raises:
            NeuroglotError: the model was compiled, has adapters that are not merged, had modules
                replaced, or has a foreign hook that changes values; PyTorch's default number type
                is not float32; or another thread is in a block that edits the model.
        """
        return operating(self.hf, self.sites)

    def training(self) -> AbstractContextManager[None]:
        """Within the block, the model or its adapters are trained, and other threads wait.

        Raises:
            NeuroglotError: in the same cases as :meth:`operating`.
        """
        return training(self.hf)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Within the block, the user's own code runs the model, in evaluation mode and unchanged.

        Raises:
            NeuroglotError: in the same cases as :meth:`operating`.
        """
        with taking_turn(self.hf, is_block=True), ready(self.hf, self.sites):
            yield

    def units(self, name: str = FFN) -> Units:
        """The units of one kind, to be read and edited.

        Args:
            name: name of the kind, which is also the ``unit`` of neuron sets of this kind.

        Raises:
            NeuroglotError: the model has no such units.
        """
        if name not in UNITS:
            raise NeuroglotError(
                f"{self.name!r} has no units called {name!r}; there are {listed(UNITS)}."
            )
        return UNITS[name](self.hf, self.sites)

    @contextmanager
    def reading_stream(self, read: Reader) -> Iterator[None]:
        """Within the block, ``read(n, values)`` gets the residual stream after ``n`` layers.

        The values are (prompt, position, d_model).
        """
        with hooking(self.hf), hooks.reading_stream([site.block for site in self.sites], read):
            yield

    def asking(
        self, prompts: Sequence[Hashable] | None = None, lengths: Tensor | None = None
    ) -> AbstractContextManager[None]:
        """Within the block, forward passes run these prompts, one per row.

        Args:
            prompts: an identifier of each prompt: its item and language.
            lengths: tokens of each prompt (row,), if the passes run more than the prompts, or less.
        """
        return self.running.these(prompts, lengths)

    def require_unedited(self) -> None:
        """Refuse a model that is being edited.

        Raises:
            NeuroglotError: the model is being edited; the message names the edits.
        """
        if self.running.edits:
            raise NeuroglotError(
                f"the model is being edited ({'; '.join(self.running.edits)}); leave the block of "
                "neuroglot.edit first."
            )

    def describe(self) -> dict[str, Any]:
        """Properties of the model and of its sites, as values that JSON can hold."""
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
    """Refuse an invalid number of prompts in a batch.

    Raises:
        NeuroglotError: ``batch_size`` is neither ``"auto"`` nor a whole number from 1.
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
    """Prepare a Hugging Face model that is already loaded: find its FFN sites and verify them.

    Args:
        hf: a dense decoder; it is put into evaluation mode.
        tokenizer: its tokenizer; a missing padding token is replaced by the end token.
        name: the model's name in results; by default the name that it was loaded by.
        revision: the revision that results record.
        down_projection: path of the down projections with ``{i}`` for the layer, if neuroglot does
            not find them by itself.
        tokenization: how prompts become tokens; by default as the tokenizer does.
        batch_size: prompts in a batch; ``"auto"`` fills a budget of tokens.

    Raises:
        NeuroglotError: no sites were found, or they failed verification.

    Examples:
        >>> import neuroglot as ng
        >>> loaded = ng.load_model("embedded/base")
        >>> ng.wrap_model(loaded.hf, loaded.tokenizer, name="my model")
        Model('my model', BloomForCausalLM, 6 layers of 768 neurons, float32 on cpu)
    """
    chosen = Tokenization() if tokenization is None else tokenization
    refuse_compiled(hf)
    for argument, value, expected in (
        ("hf", hf, PreTrainedModel),
        ("tokenizer", tokenizer, PreTrainedTokenizerBase),
    ):
        if not isinstance(value, expected):
            refuse_adapters(value)
            raise NeuroglotError(
                f"{argument} is a {type(value).__name__}; expected a {expected.__name__} of "
                "transformers."
            )
    check_batch_size(batch_size)
    check_tokenization(tokenizer, chosen)
    refuse_encoder_decoder(hf.config)
    with taking_turn(hf) as turn:
        if turn.running.edits:
            raise NeuroglotError(
                f"this {type(hf).__name__} is being edited ({'; '.join(turn.running.edits)}), "
                "which would distort its verification; leave the block of neuroglot.edit first."
            )
        hf.train(mode=False)
        if tokenizer.pad_token_id is None:
            if tokenizer.eos_token_id is None:
                raise NeuroglotError(
                    "the tokenizer has neither a padding nor an end token; set tokenizer.pad_token."
                )
            tokenizer.pad_token = tokenizer.eos_token
        with operating(hf):
            sites, verified = _find_and_verify(hf, down_projection)
            shown_name = name or hf.config.name_or_path or type(hf).__name__
            model = Model(
                hf,
                tokenizer,
                sites,
                shown_name,
                revision,
                chosen,
                **vars(verified),
                batch_size=batch_size,
            )
        _warn_of_batches(model)
        return model


def _warn_of_batches(model: Model) -> None:
    """Warn if results depend on the batch, or if long texts are refused for the sake of others."""
    if model.noise:
        warnings.warn(
            f"{model.name} has layers that are quantised by the largest value of a whole batch, so "
            f"other prompts change the logits of a prompt by {model.noise:.2%} of their size; "
            "results depend a little on the batch size.",
            stacklevel=3,
        )
    without = replace(model, longest=None).context_length
    if model.longest is not None and (without is None or model.longest < without - 1):
        warnings.warn(
            f"the rotary factors of {model.name} depend on the longest text of a batch, and change "
            f"if a text has more than {model.longest} tokens; longer texts are refused.",
            stacklevel=3,
        )


def _find_and_verify(hf: PreTrainedModel, path: str | None) -> tuple[tuple[FFNSite, ...], Verified]:
    """The sites of a model and the results of its verification, remembered from an earlier load.

    Raises:
        NeuroglotError: no sites were found, or they failed verification.
    """
    key = key_of(hf, path)
    remembered = recall(key)
    if remembered is not None:
        return sites_at(hf, remembered.path, remembered.found_by), remembered.verified
    sites = find_sites(hf, path)
    widths = {site.n_neurons for site in sites}
    if len(widths) > 1:
        raise NeuroglotError(f"layers of different widths are not supported: {sorted(widths)}.")
    verified = verify(hf, sites)
    # Some models, such as BigBird, change what they compute when they run for the first time.
    if key == key_of(hf, path):
        # In a path that the user did not name, the first number is the layer.
        pattern = path or re.sub(r"\b0\b", "{i}", sites[0].path, count=1)
        remember(key, Remembered(pattern, sites[0].found_by, verified))
    return sites, verified
