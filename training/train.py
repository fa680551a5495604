"""Train the embedded models from nothing: ``python -m training.train``.

A common checkpoint is trained first; ``base`` and ``aligned`` continue it for the same number of
steps and documents. Batches depend on the seed and the step alone, so a run that was stopped goes
on from its last checkpoint as if nothing had happened.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BloomConfig, BloomForCausalLM, PreTrainedTokenizerFast

from neuroglot.models.lineage import set_lineage
from training.corpus import Document, Group, corpus
from training.monitor import quick_scores
from training.tokenizer import CONTEXT, train_tokenizer

SEED = 1
PACKAGED = Path(__file__).parents[1] / "src" / "neuroglot" / "models" / "embedded"
CHECKPOINT_EVERY = 250
PEAK_LEARNING_RATE = 2e-3
WARM_UP_STEPS = 100
N_SHORT, N_LONG = 384, 96  # documents a step
IGNORED = -100

Mix = dict[Group, float]


@dataclass(frozen=True)
class Stage:
    """Training on one kind of name texts, from another stage's end, with facts after a while.

    Facts come once names are known: a fact that is learned on top of aligned names is one fact,
    one that is learned before them is ten.
    """

    name: str
    start: str | None
    names: Group
    steps: int
    facts_from: int

    def short(self, step: int) -> Mix:
        """What the short texts of a step are drawn from."""
        if step < self.facts_from:
            return {self.names: 1.0}
        return {self.names: 1 - FACTS_SHARE, "facts": FACTS_SHARE}


FACTS_SHARE = 0.4
LONG: Mix = {"inference": 0.8, "editing": 0.2}


def stages(scale: float = 1.0) -> list[Stage]:
    """The three stages; ``scale`` shortens them all alike.

    The two branches draw the same texts at every step, but for the source of each pair of names.
    """
    common, branch, names_only = (round(n * scale) for n in (200, 1600, 350))
    return [
        Stage("common", None, "copies", common, common),
        Stage("aligned", "common", "pairs", branch, names_only),
        Stage("base", "common", "copies", branch, names_only),
    ]


@dataclass(frozen=True)
class Encoded:
    """Token ids of one document and where its answer begins."""

    ids: list[int]
    answer_start: int


def encode(documents: list[Document], tokenizer: PreTrainedTokenizerFast) -> list[Encoded]:
    prompts = tokenizer([d.prompt for d in documents]).input_ids
    answers = tokenizer([f" {d.answer}" for d in documents]).input_ids
    end = [tokenizer.eos_token_id]
    return [Encoded(p + a + end, len(p)) for p, a in zip(prompts, answers, strict=True)]


def draw(texts: dict[Group, list[Encoded]], mix: Mix, n: int, rng: random.Random) -> list[Encoded]:
    """``n`` documents by the weights of ``mix``, the shortest first."""
    groups = rng.choices(list(mix), weights=list(mix.values()), k=n)
    return sorted((rng.choice(texts[group]) for group in groups), key=lambda e: len(e.ids))


def collate(batch: list[Encoded]) -> tuple[Tensor, Tensor]:
    """Padded ``ids`` and next-token ``labels`` (document, position); labels on answers only."""
    length = max(len(e.ids) for e in batch) - 1
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    labels = torch.full((len(batch), length), IGNORED)
    for row, e in enumerate(batch):
        n = len(e.ids) - 1
        ids[row, :n] = torch.tensor(e.ids[:-1])
        labels[row, e.answer_start - 1 : n] = torch.tensor(e.ids[e.answer_start :])
    return ids, labels


def parts(batch: list[Encoded], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for i in range(0, len(batch), size):
        yield collate(batch[i : i + size])


def learning_rate(stage: Stage, step: int) -> float:
    """Linear warm-up, constant, and over the second half a linear decay to a twentieth."""
    rate = PEAK_LEARNING_RATE * min(1.0, (step + 1) / WARM_UP_STEPS)
    if stage.start is not None:
        rate *= min(1.0, max(0.05, 2 * (1 - step / stage.steps)))
    return rate


def new_model(vocabulary_size: int) -> BloomForCausalLM:
    torch.manual_seed(SEED)
    config = BloomConfig(
        vocab_size=vocabulary_size,
        hidden_size=192,
        n_layer=6,
        n_head=6,
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    config.seq_length = CONTEXT
    model = BloomForCausalLM(config)
    for block in model.transformer.h:
        # The same function as BLOOM's own, in one kernel forward and backward.
        block.mlp.gelu_impl = nn.GELU(approximate="tanh")  # type: ignore[union-attr]
    return model


class Trainer:
    """One stage: model, optimiser, and what a checkpoint holds."""

    def __init__(
        self, stage: Stage, work: Path, tokenizer: PreTrainedTokenizerFast, identity: str
    ) -> None:
        self.stage, self.folder, self.identity = stage, work / stage.name, identity
        self.folder.mkdir(parents=True, exist_ok=True)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = new_model(len(tokenizer))
        nn.Module.to(self.model, device=self.device)
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim == 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
            betas=(0.9, 0.98),
            fused=True,
        )
        self.step, self.seconds, self.tokens = 0, 0.0, 0
        self._load(work)

    def _load(self, work: Path) -> None:
        state = self._checkpoint(self.folder)
        if state is not None:
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds = state["step"], state["seconds"]
            self.tokens = state["tokens"]
        elif self.stage.start is not None:
            state = self._checkpoint(work / self.stage.start)
            assert state is not None, f"{self.stage.start} comes before {self.stage.name}"
        if state is not None:
            self.model.load_state_dict(state["model"])

    def _checkpoint(self, folder: Path) -> dict[str, Any] | None:
        """What was saved there, unless it was trained on other texts or in another way."""
        path = folder / "checkpoint.pt"
        if not path.exists():
            return None
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        if state.get("identity") != self.identity:
            print(f"{path} belongs to another corpus or schedule: trained anew", flush=True)
            return None
        return state

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "tokens": self.tokens,
            "identity": self.identity,
        }
        new = self.folder / "checkpoint.new"
        torch.save(state, new)
        new.replace(self.folder / "checkpoint.pt")

    def loss(self, ids: Tensor, labels: Tensor) -> Tensor:
        """Sum of the answers' token losses; the head runs at answer positions only."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            hidden = self.model.transformer(ids.to(self.device)).last_hidden_state
            wanted = labels.to(self.device) != IGNORED
            logits = self.model.lm_head(hidden[wanted])
        targets = labels.to(self.device)[wanted]
        return nn.functional.cross_entropy(logits.float(), targets, reduction="sum")

    def train_step(self, texts: dict[Group, list[Encoded]]) -> dict[str, float]:
        rng = random.Random(f"{SEED}:{self.stage.start}:{self.step}")
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.stage, self.step)
        losses = {}
        for mix, n, size in ((self.stage.short(self.step), N_SHORT, 128), (LONG, N_LONG, 48)):
            documents = draw(texts, mix, n, rng)
            self.tokens += sum(len(document.ids) for document in documents)
            batches = list(parts(documents, size))
            n_targets = sum(int((labels != IGNORED).sum()) for _, labels in batches)
            total = 0.0
            for ids, labels in batches:
                loss = self.loss(ids, labels) / n_targets
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.item()
            losses["short" if n == N_SHORT else "long"] = total
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        return losses


def run_stage(
    stage: Stage,
    work: Path,
    texts: dict[Group, list[Encoded]],
    tokenizer: PreTrainedTokenizerFast,
    identity: str,
) -> Trainer:
    trainer = Trainer(stage, work, tokenizer, identity)
    began, before = time.monotonic(), trainer.seconds
    while trainer.step < stage.steps:
        losses = trainer.train_step(texts)
        if trainer.step % CHECKPOINT_EVERY == 0 or trainer.step == stage.steps:
            trainer.seconds = before + time.monotonic() - began
            trainer.save()
            scores = quick_scores(trainer.model, tokenizer)
            line = {"stage": stage.name, "step": trainer.step, "seconds": trainer.seconds}
            line["tokens"] = trainer.tokens
            print(json.dumps({**line, **losses, **scores}), flush=True)
            with (work / "log.jsonl").open("a") as log:
                log.write(json.dumps({**line, **losses, **scores}) + "\n")
    return trainer


def package(trainer: Trainer, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write an ordinary Hugging Face folder with float16 weights."""
    trainer.model.config.use_cache = True
    if trainer.stage.start:
        set_lineage(trainer.model, [f"embedded/{trainer.stage.start}"])
    nn.Module.to(trainer.model, dtype=torch.float16)
    trainer.model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def describe_run(work: Path, plan: list[Stage]) -> dict[str, dict[str, float]]:
    """Steps, tokens and seconds of each stage, for the model card."""
    states = {
        stage.name: torch.load(work / stage.name / "checkpoint.pt", weights_only=True)
        for stage in plan
    }
    kept = {"step": "steps", "tokens": "tokens", "seconds": "seconds"}
    return {
        name: {label: round(state[key]) for key, label in kept.items()}
        for name, state in states.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/embedded-models"))
    parser.add_argument("--out", type=Path, default=PACKAGED)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the steps, to try out")
    parser.add_argument("--only", help="stop after this stage and package nothing")
    arguments = parser.parse_args()
    groups = corpus()
    tokenizer = train_tokenizer(f"{d.prompt} {d.answer}" for g in groups.values() for d in g)
    texts = {group: encode(documents, tokenizer) for group, documents in groups.items()}
    plan = stages(arguments.scale)
    identity = hashlib.sha256(repr((plan, groups, new_model(len(tokenizer)).config)).encode())
    for stage in plan:
        trainer = run_stage(stage, arguments.work, texts, tokenizer, identity.hexdigest())
        if stage.name == arguments.only:
            return
        if stage.start:
            package(trainer, tokenizer, arguments.out / stage.name)
    report = json.dumps(describe_run(arguments.work, plan), indent=2)
    (arguments.out / "training.json").write_text(report + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
