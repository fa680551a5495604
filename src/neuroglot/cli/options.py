"""Arguments and options that several commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_type_hints

import typer

import neuroglot as ng
from neuroglot import defaults
from neuroglot.cli import terminal
from neuroglot.cli.parsing import language_codes, template_arguments
from neuroglot.errors import plain

if TYPE_CHECKING:
    from neuroglot.models.tokenization import PaddingSide
    from neuroglot.tasks.readers.distractors import Distractors
    from neuroglot.tasks.readers.mpararel import Kept


ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="embedded/base, embedded/aligned, a Hub id or a folder.",
        show_default=False,
    ),
]
TaskName = Annotated[
    str,
    typer.Argument(
        metavar="TASK",
        help="A name that `neuroglot tasks` lists, or a .jsonl or .csv file.",
        show_default=False,
    ),
]
Languages = Annotated[
    str | None,
    typer.Option(help="Language codes with commas between, for example en,de,th. Default: all."),
]
Limit = Annotated[int | None, typer.Option(help="Only so many items. Default: all.")]
Split = Annotated[str, typer.Option(help="all, taught or held_out.")]
Template = Annotated[
    str,
    typer.Option(
        help="native, shared, a prompt with fields in braces, or a .toml file of prompts."
    ),
]
DataPath = Annotated[
    Path | None,
    typer.Option("--path", help="Folder with the published files. Default: ask the Hub."),
]
Incomplete = Annotated[
    bool,
    typer.Option("--incomplete", help="Leave out items that a language lacks, and say how many."),
]
WrongChoices = Annotated[
    str | None,
    typer.Option(
        help="mpararel: wrong choices drawn proportional to how often each is right, or uniform. "
        "Default: proportional."
    ),
]
Relations = Annotated[
    str | None,
    typer.Option(
        help="mpararel: all, or single: without relations in which other objects are often true. "
        "Default: single."
    ),
]
Site = Annotated[str, typer.Option(help="gate or coefficient.")]
Position = Annotated[str, typer.Option(help="last or all.")]
Thresholds = Annotated[
    str, typer.Option(help="A neuron is active above this; several with commas between.")
]
AddedTokens = Annotated[
    bool,
    typer.Option(
        "--added-tokens/--no-added-tokens",
        help="Whether position all has the tokens that the tokenizer adds before a text.",
    ),
]
KeepValues = Annotated[bool, typer.Option("--keep-values", help="Also keep the site values.")]
BatchSize = Annotated[str, typer.Option(help="Prompts in a batch, or auto.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Device = Annotated[
    str | None,
    typer.Option(help="cpu, cuda, … or auto (over all). Default: a GPU if there is one."),
]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, auto, …")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the Hub.")]
DownProjection = Annotated[
    str | None,
    typer.Option(help="Down projections by name, {i} for the layer, where they are not known."),
]
SpecialTokens = Annotated[
    bool,
    typer.Option(
        "--special-tokens/--no-special-tokens",
        help="Whether the tokenizer adds what it puts before a text.",
    ),
]
ChatTemplate = Annotated[
    bool, typer.Option("--chat-template", help="Put each prompt into the chat template.")
]
TemplateArguments = Annotated[
    list[str] | None,
    typer.Option(
        "--template-argument",
        metavar="NAME=VALUE",
        help="What the chat template is given, the value as JSON: enable_thinking=false, or "
        "'date_string=\"26 Jul 2024\"'. May be given several times.",
    ),
]
Padding = Annotated[
    str | None,
    typer.Option("--padding-side", help="left or right. Default: as the tokenizer does."),
]
Truncate = Annotated[
    bool, typer.Option("--truncate", help="Cut the beginning of prompts that are too long.")
]
Score = Annotated[
    str, typer.Option(help="Choices by the sum of their log-probabilities, or the mean a token.")
]
SCORES = ",".join(defaults.NEURON_SCORES)
NeuronScores = Annotated[
    str,
    typer.Option(
        "--scores",
        help="Of neurons, with commas between: contribution, effective, direct_logit, "
        "gradient_x_activation, integrated_gradients; or none.",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        help="correct_minus_best_wrong, answer (its first token, as in the paper) or prediction. "
        "Default: the first of these that the task has what for.",
    ),
]
EquivalentWithin = Annotated[
    float, typer.Option(help="Accuracies that differ by less than this count as the same.")
]
MaxNewTokens = Annotated[
    int,
    typer.Option(
        help="The most tokens that the model writes, thoughts included, where there are no choices."
    ),
]
Masked = Annotated[
    bool,
    typer.Option(
        "--masked/--no-masked",
        help="Whether choices are also asked for with the subject masked, where the task can.",
    ),
]
Stored = Annotated[Path, typer.Argument(metavar="RECORDING", help="What `neuroglot record` wrote.")]
Out = Annotated[Path | None, typer.Option(help="Folder to save the result in.")]


@dataclass(frozen=True)
class TaskOptions:
    """Which items of a task, and in which words."""

    languages: Languages = None
    limit: Limit = None
    split: Split = "all"
    template: Template = "native"
    path: DataPath = None
    incomplete: Incomplete = False
    distractors: WrongChoices = None
    relations: Relations = None

    def load(self, name: str) -> ng.ParallelTask:
        """The task; what it says of its items is printed on standard error."""
        chosen = language_codes(self.languages)
        task = ng.load_task(
            name,
            chosen,
            self.limit,
            self.split,
            self.template,
            self.path,
            incomplete=self.incomplete,
            distractors=cast("Distractors | None", self.distractors),
            relations=cast("Kept | None", self.relations),
        )
        for note in task.notes:
            terminal.say(plain(f"neuroglot: note: {name}: {note}"), err=True)
        return task


@dataclass(frozen=True)
class ModelOptions:
    """Where a model runs, in which number type, and how prompts become its tokens."""

    device: Device = None
    dtype: Dtype = None
    revision: Revision = None
    down_projection: DownProjection = None
    special_tokens: SpecialTokens = True
    chat_template: ChatTemplate = False
    template_argument: TemplateArguments = None
    padding_side: Padding = None
    truncate: Truncate = False

    def load(self, name: str) -> ng.Model:
        """The model."""
        tokenization = ng.Tokenization(
            special_tokens=self.special_tokens,
            chat_template=self.chat_template,
            padding_side=cast("PaddingSide | None", self.padding_side),
            truncate=self.truncate,
            template_arguments=template_arguments(self.template_argument or ()),
        )
        return ng.load_model(
            name,
            self.device,
            self.dtype,
            self.revision,
            self.down_projection,
            tokenization=tokenization,
        )


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let Typer see the fields of a command's groups of options as options of their own."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    seen = [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(command).parameters.items()
        if name not in groups
    ]
    for group in groups.values():
        of_group = get_type_hints(group, include_extras=True)
        seen += [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=of_group[field.name],
            )
            for field in fields(group)
        ]

    @functools.wraps(command)
    def flat(**given: Any) -> None:
        made = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**given, **made)

    flat.__signature__ = inspect.Signature(seen)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in seen}
    return flat
