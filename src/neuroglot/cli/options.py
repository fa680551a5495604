"""Arguments and options that several commands share."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable
from dataclasses import Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args, get_origin, get_type_hints

import typer

import neuroglot as ng
from neuroglot import defaults
from neuroglot.cli import terminal
from neuroglot.cli.parsing import batch_size_of, language_codes, numbers, template_arguments
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
Threshold = Annotated[float, typer.Option(help="A neuron is active above this.")]
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
            languages=chosen,
            limit=self.limit,
            split=self.split,
            template=self.template,
            path=self.path,
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
    batch_size: BatchSize = "auto"

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
            device=self.device,
            dtype=self.dtype,
            revision=self.revision,
            down_projection=self.down_projection,
            tokenization=tokenization,
            batch_size=batch_size_of(self.batch_size),
        )


@dataclass(frozen=True)
class Only:
    """Which fields of a class of options a command takes: ``Annotated[Reading, Only("site")]``."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)


PARSERS: dict[str, Callable[[str], Any]] = {"thresholds": numbers}


def _flags_of(hint: Any) -> list[inspect.Parameter]:
    """The options of a command that the fields of a class of options are made from.

    A field of the library's classes says its help itself (see :func:`neuroglot.options.option`),
    and one that says none is no option. Fields of classes of the command line are annotated.
    """
    group, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    wanted = next((extra.names for extra in extras if isinstance(extra, Only)), None)
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_as_text(field.default) if field.name in PARSERS else field.default,
            annotation=_annotation(field, hints[field.name]),
        )
        for field in fields(group)
        if (field.name in wanted if wanted else _is_option(field, hints[field.name]))
    ]


def _is_option(field: Field[Any], hint: Any) -> bool:
    return "help" in field.metadata or get_origin(hint) is Annotated


def _annotation(field: Field[Any], hint: Any) -> Any:
    if "help" not in field.metadata:
        return hint
    name, text = field.name.replace("_", "-"), field.metadata["help"]
    if bool in (hint, *get_args(hint)):
        flag = f"--{name}" if field.default is False else f"--{name}/--no-{name}"
        return Annotated[hint, typer.Option(flag, help=text)]
    return Annotated[hint if hint is int else str, typer.Option(help=text)]


def _as_text(numbers: Any) -> str:
    return ",".join(f"{number:g}" for number in numbers)


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let Typer see the fields of a command's groups of options as options of their own."""
    hints = get_type_hints(command, include_extras=True)
    kinds = {name: get_args(hint)[0] if get_args(hint) else hint for name, hint in hints.items()}
    groups = {name: _flags_of(hints[name]) for name, kind in kinds.items() if is_dataclass(kind)}
    seen = [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(command).parameters.items()
        if name not in groups
    ]
    seen += itertools.chain(*groups.values())

    @functools.wraps(command)
    def flat(**given: Any) -> None:
        made = {}
        for group, flags in groups.items():
            values = {flag.name: given.pop(flag.name) for flag in flags}
            parsed = {x: PARSERS[x](y) if x in PARSERS else y for x, y in values.items()}
            made[group] = kinds[group](**parsed)
        command(**given, **made)

    flat.__signature__ = inspect.Signature(seen)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in seen}
    return flat
