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
        help="embedded/base, embedded/aligned, the id of a model on the Hub, or a folder.",
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
Threshold = Annotated[
    float, typer.Option(help="A neuron is active if its site value is above this.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace earlier results.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SCORES = ",".join(defaults.NEURON_SCORES)
NeuronScores = Annotated[
    str,
    typer.Option(
        "--scores",
        help="Scores of neurons: contribution, effective, direct_logit, gradient_x_activation and "
        "integrated_gradients, or none.",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        help="correct_minus_best_wrong, answer (its first token, as in the paper) or prediction. "
        "Default: the first of these that the task allows.",
    ),
]
EquivalentWithin = Annotated[
    float, typer.Option(help="Accuracies that differ by less than this count as equivalent.")
]
Stored = Annotated[
    Path, typer.Argument(metavar="RECORDING", help="Folder that `neuroglot record` wrote.")
]
Out = Annotated[Path | None, typer.Option(help="Folder for the result.")]


@dataclass(frozen=True)
class TaskOptions:
    """The items, languages and prompts of a task."""

    languages: Annotated[
        str | None,
        typer.Option(help="Language codes, such as en,de,th. Default: all."),
    ] = None
    limit: Annotated[int | None, typer.Option(help="Largest number of items. Default: all.")] = None
    split: Annotated[str, typer.Option(help="Prompts that count: all, taught or held_out.")] = "all"
    template: Annotated[
        str,
        typer.Option(
            help="native, shared, a prompt with fields in braces, or a .toml file of prompts."
        ),
    ] = "native"
    path: Annotated[
        Path | None,
        typer.Option("--path", help="Folder with the published files. Default: load from the Hub."),
    ] = None
    incomplete: Annotated[
        bool,
        typer.Option("--incomplete", help="Leave out items that are missing in a language."),
    ] = False
    distractors: Annotated[
        str | None,
        typer.Option(
            help="For mpararel: draw wrong choices proportional (to how often each is right) or "
            "uniform. Default: proportional."
        ),
    ] = None
    relations: Annotated[
        str | None,
        typer.Option(
            help="For mpararel: all relations, or single, which leaves out relations with several "
            "true objects. Default: single."
        ),
    ] = None

    def load(self, name: str) -> ng.ParallelTask:
        """Load the task, and print its notes on standard error."""
        task = ng.load_task(
            name,
            languages=language_codes(self.languages),
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
    """The device and number type of a model, and the way prompts become tokens."""

    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda, … or auto (all devices). Default: a GPU if there is one."),
    ] = None
    dtype: Annotated[str | None, typer.Option(help="Number type: float32, bfloat16, auto, …")] = (
        None
    )
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of the model on the Hub.")
    ] = None
    down_projection: Annotated[
        str | None,
        typer.Option(
            help="Path of the down projections, with {i} for the layer, if they are not found."
        ),
    ] = None
    special_tokens: Annotated[
        bool,
        typer.Option(
            "--special-tokens/--no-special-tokens",
            help="Whether the tokenizer adds its special tokens to a text.",
        ),
    ] = True
    chat_template: Annotated[
        bool, typer.Option("--chat-template", help="Put each prompt into the chat template.")
    ] = False
    template_argument: Annotated[
        list[str] | None,
        typer.Option(
            "--template-argument",
            metavar="NAME=VALUE",
            help="Argument of the chat template, its value as JSON, such as enable_thinking=false "
            "or 'date_string=\"26 Jul 2024\"'. May be given several times.",
        ),
    ] = None
    padding_side: Annotated[
        str | None,
        typer.Option("--padding-side", help="left or right. Default: that of the tokenizer."),
    ] = None
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Cut the beginning of prompts that are too long.")
    ] = False
    batch_size: Annotated[str, typer.Option(help="Number of prompts in a batch, or auto.")] = "auto"

    def load(self, name: str) -> ng.Model:
        """Load the model."""
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
    """The fields that a command takes of a class of options: ``Annotated[X, Only(("site",))]``."""

    names: tuple[str, ...]


# How the texts of some options become the values of their fields.
PARSERS: dict[str, Callable[[Any], Any]] = {
    "thresholds": numbers,
    "train_languages": language_codes,
}


def _flags_of(hint: Any) -> dict[str, inspect.Parameter]:
    """The parameters of a command for the fields of a class of options.

    Fields of the command line's classes are annotated with their option. Fields of the library's
    classes have their help text in their metadata, and perhaps another name of the option under
    ``"flag"``; a field without a help text is no option.

    Returns:
        The parameters by the names of the fields.
    """
    group, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    wanted = next((extra.names for extra in extras if isinstance(extra, Only)), None)
    hints = get_type_hints(group, include_extras=True)
    return {
        field.name: inspect.Parameter(
            field.metadata.get("flag", field.name),
            inspect.Parameter.KEYWORD_ONLY,
            default=(
                ",".join(f"{number:g}" for number in field.default)
                if isinstance(field.default, tuple)
                else field.default
            ),
            annotation=_annotation(field, hints[field.name]),
        )
        for field in fields(group)
        if (
            field.name in wanted
            if wanted
            else "help" in field.metadata or get_origin(hints[field.name]) is Annotated
        )
    }


def _annotation(field: Field[Any], hint: Any) -> Any:
    if "help" not in field.metadata:
        return hint
    name, text = field.name.replace("_", "-"), field.metadata["help"]
    if bool in (hint, *get_args(hint)):
        flag = f"--{name}" if field.default is False else f"--{name}/--no-{name}"
        return Annotated[hint, typer.Option(flag, help=text)]
    is_number = set(get_args(hint) or (hint,)) <= {int, float, type(None)}
    return Annotated[hint if is_number else str, typer.Option(help=text)]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each field of the classes of options that it takes."""
    hints = get_type_hints(command, include_extras=True)
    kinds = {name: get_args(hint)[0] if get_args(hint) else hint for name, hint in hints.items()}
    groups = {name: _flags_of(hints[name]) for name, kind in kinds.items() if is_dataclass(kind)}
    parameters = [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(command).parameters.items()
        if name not in groups
    ]
    parameters += itertools.chain(*(flags.values() for flags in groups.values()))

    @functools.wraps(command)
    def flat(**given: Any) -> None:
        for name, parse in PARSERS.items():
            if name in given:
                given[name] = parse(given[name])
        options = {
            group: kinds[group](**{name: given.pop(flag.name) for name, flag in flags.items()})
            for group, flags in groups.items()
        }
        command(**given, **options)

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flat
