"""A model that is ready to be looked into: weights, tokenizer and verified sites."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from neuroglot.errors import NeuroglotError
from neuroglot.models import hooks
from neuroglot.models.behaviour import shares_cache
from neuroglot.models.finding import find_sites, refuse_encoder_decoder
from neuroglot.models.hooks import Editor, Reader, TokenEditor
from neuroglot.models.lineage import fingerprint, lineage
from neuroglot.models.probing import norm_follows
from neuroglot.models.running import Positions, Running
from neuroglot.models.sites import FFNSite, SiteKind
from neuroglot.models.structure import one_of_each_kind
from neuroglot.models.tokenization import (
    PaddingSide,
    Tokenization,
    check_tokenization,
    describe_tokenization,
)
from neuroglot.models.verify import verify_sites

# Tokenizers without a limit report a number of this order.
NO_LIMIT = 10**9
CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len")


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
        running: what it runs at the moment.
    """

    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    sites: tuple[FFNSite, ...]
    name: str
    revision: str | None = None
    tokenization: Tokenization = field(default_factory=Tokenization)
    norm_after_ffn: bool = False
    shares_cache: bool = False
    running: Running = field(default_factory=Running, repr=False, compare=False)

    def __repr__(self) -> str:
        """One line; ``describe()`` says more."""
        return (
            f"Model({self.name!r}, {type(self.hf).__name__}, {self.n_layers} layers of "
            f"{self.n_neurons} neurons, {self.dtype} on {self.device})"
        )

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
        return next(self.hf.get_input_embeddings().parameters()).device

    @property
    def context_length(self) -> int | None:
        """The most tokens that a prompt may have, or ``None`` without a limit."""
        config = self.hf.config.get_text_config()
        limits = [getattr(config, field, None) for field in CONTEXT_FIELDS]
        limits.append(self.tokenizer.model_max_length)
        known = [int(limit) for limit in limits if limit is not None and limit < NO_LIMIT]
        return min(known, default=None)

    @property
    def fingerprint(self) -> str:
        """Checksum over a sample of every weight: tells two checkpoints of one name apart."""
        return fingerprint(self.hf)

    @property
    def lineage(self) -> tuple[str, ...]:
        """Fingerprints of the checkpoints that this one continues, the oldest first."""
        return lineage(self.hf)

    @contextmanager
    def reading(
        self, kind: SiteKind, read: Reader, layers: Sequence[int], *, then_stop: bool = False
    ) -> Iterator[None]:
        """Within the block, ``read(layer, values)`` sees every firing of the given layers.

        With ``then_stop`` the forward pass ends, and with it the block, after the last of them.
        """
        sites = [self.sites[layer] for layer in sorted(layers)]
        # What loads weights from elsewhere puts them back at the end of each module.
        offloaded = any(parameter.is_meta for parameter in self.hf.parameters())
        with hooks.reading(sites, kind, read, then_stop=then_stop and not offloaded):
            yield

    @contextmanager
    def reading_stream(self, read: Reader) -> Iterator[None]:
        """Within the block, ``read(n, values)`` sees the residual stream after ``n`` layers.

        Values are (prompt, position, d_model).
        """
        with hooks.reading_stream(self.sites, read):
            yield

    @contextmanager
    def editing(self, edit: Editor) -> Iterator[None]:
        """Within the block, coefficients are what ``edit(layer, coefficients)`` returns."""
        with hooks.editing(self.sites, edit):
            yield

    @contextmanager
    def editing_tokens(self, edit: TokenEditor, positions: Positions) -> Iterator[None]:
        """Within the block, coefficients of some tokens are what ``edit`` returns for them."""
        at = (self.running, positions)
        with hooks.editing_tokens(self.hf, self.sites, edit, at):
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
            **describe_tokenization(self.tokenizer, self.tokenization),
        }


def wrap_model(
    hf: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    name: str | None = None,
    revision: str | None = None,
    sites: str | None = None,
    tokenization: Tokenization | None = None,
) -> Model:
    """Make a loaded Hugging Face model ready: find its sites and verify them.

    Args:
        hf: a dense decoder; put into evaluation mode.
        tokenizer: its tokenizer; a missing padding token is replaced by the end token.
        name: what to call it in results; by default the name it was loaded by.
        revision: what to record as its revision.
        sites: path of the down projections with ``{i}`` for the layer, where it is not known.
        tokenization: how prompts become tokens; by default as the tokenizer does.

    Raises:
        NeuroglotError: no sites were found, or they are not what they seem.
    """
    chosen = Tokenization() if tokenization is None else tokenization
    check_tokenization(tokenizer, chosen)
    refuse_encoder_decoder(hf.config)
    hf.train(mode=False)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise NeuroglotError(
                "the tokenizer has neither a padding nor an end token; set tokenizer.pad_token."
            )
        tokenizer.pad_token = tokenizer.eos_token
    found = find_sites(hf, sites)
    widths = {site.n_neurons for site in found}
    if len(widths) > 1:
        raise NeuroglotError(f"layers of different widths are not supported: {sorted(widths)}.")
    verify_sites(hf, found)
    known_as = name or hf.config.name_or_path or type(hf).__name__
    return Model(
        hf,
        tokenizer,
        found,
        known_as,
        revision,
        chosen,
        norm_after_ffn=any(norm_follows(hf, site) for site in one_of_each_kind(found)),
        shares_cache=shares_cache(hf),
    )
