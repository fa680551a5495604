"""States of model and process: results are as in a fresh process, or there are none."""

from __future__ import annotations

import asyncio
import copy
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import neuroglot as ng
from tests.families import FAMILIES, build
from tests.testing import small_task, tiny_hf, tokenizer

Operation = Callable[[ng.Model], Any]
TASK = small_task(3, "en de")


def wrapped(name: str = "gpt2", **config: Any) -> ng.Model:
    """A model with much dropout, where its family has any."""
    family = FAMILIES[name]
    drop = {"resid_pdrop": 0.5, "embd_pdrop": 0.5} if name == "gpt2" else {}
    hf = build(family.architecture, family.config | drop | config)
    return ng.wrap_model(hf, tokenizer(), name="x")


def some(model: ng.Model) -> ng.NeuronSet:
    mask = np.random.default_rng(0).random((model.n_layers, model.n_neurons)) < 0.5
    return ng.NeuronSet(mask, "half")


def edited(model: ng.Model) -> Any:
    with ng.edit(model, ng.Zero(some(model))):
        return ng.evaluate(model, TASK)["log_prob"]


OPERATIONS: dict[str, Operation] = {
    "record": lambda model: ng.record(model, TASK, reading=ng.Reading(keep_values=True)).values,
    "evaluate": lambda model: ng.evaluate(model, TASK)["log_prob"],
    "edit": edited,
    "neuron_scores": lambda model: ng.neuron_scores(model, TASK, score="gradient_x_activation"),
    "causal_agreement": lambda model: ng.causal_agreement(
        model, TASK, scores=("contribution",), n_neurons=3
    )["effect"],
}


@contextmanager
def train_mode(model: ng.Model) -> Iterator[None]:
    model.hf.train()
    yield
    assert model.hf.training
    assert all(module.training for module in model.hf.modules())
    model.hf.train(mode=False)


@contextmanager
def default_device(_model: ng.Model) -> Iterator[None]:
    with torch.device("meta"):
        yield
        assert torch.empty(1).is_meta


@contextmanager
def autocast(_model: ng.Model) -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16):
        yield
        assert torch.is_autocast_enabled("cpu")


@contextmanager
def looking_hook(model: ng.Model) -> Iterator[None]:
    seen: list[float] = []
    hooks = [
        model.hf.register_forward_hook(lambda *_: seen.append(1.0)),
        model.sites[1].down.register_forward_pre_hook(lambda _m, inputs: inputs),
        model.sites[0].block.register_forward_hook(lambda _m, _i, output: output),
    ]
    yield
    assert seen
    for hook in hooks:
        hook.remove()


@contextmanager
def grad_off(_model: ng.Model) -> Iterator[None]:
    with torch.no_grad():
        yield


@contextmanager
def inference(_model: ng.Model) -> Iterator[None]:
    with torch.inference_mode():
        yield


@contextmanager
def tuples(model: ng.Model) -> Iterator[None]:
    model.hf.config.return_dict = False
    yield
    assert model.hf.config.return_dict is False
    model.hf.config.return_dict = True


@contextmanager
def hidden_states(model: ng.Model) -> Iterator[None]:
    model.hf.config.output_hidden_states = True
    yield
    assert model.hf.config.output_hidden_states
    model.hf.config.output_hidden_states = False


RIGHT = (
    tuples,
    hidden_states,
    train_mode,
    default_device,
    autocast,
    looking_hook,
    grad_off,
    inference,
)


@pytest.mark.parametrize("operation", list(OPERATIONS))
@pytest.mark.parametrize("state", RIGHT)
def test_states_that_change_nothing(state: Any, operation: str) -> None:
    model = wrapped()
    expected = OPERATIONS[operation](model)
    with state(model):
        found = OPERATIONS[operation](model)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(OPERATIONS[operation](model), expected)


@pytest.mark.parametrize("state", [default_device, autocast, inference])
def test_models_load_in_these_states(state: Any) -> None:
    expected = OPERATIONS["record"](ng.load_model("embedded/base", device="cpu"))
    with state(wrapped()):
        model = ng.load_model("embedded/base", device="cpu")
        np.testing.assert_array_equal(OPERATIONS["record"](model), expected)


def scaled(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return output * 1.01


def written_over(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
    output[..., 0] = 0


@contextmanager
def default_dtype(_model: ng.Model) -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def returning_hook(model: ng.Model) -> Iterator[None]:
    handle = model.sites[1].down.register_forward_hook(scaled)
    yield
    handle.remove()


@contextmanager
def writing_hook(model: ng.Model) -> Iterator[None]:
    handle = model.sites[1].down.register_forward_hook(written_over)
    yield
    handle.remove()


@contextmanager
def pre_hook(model: ng.Model) -> Iterator[None]:
    handle = model.sites[0].block.register_forward_pre_hook(lambda _m, inputs: (inputs[0] + 1,))
    yield
    handle.remove()


@contextmanager
def hook_on_all_modules(model: ng.Model) -> Iterator[None]:
    def half(module: nn.Module, _inputs: Any, output: Any) -> Any:
        return output / 2 if module is model.sites[2].down else None

    handle = nn.modules.module.register_module_forward_hook(half)
    yield
    handle.remove()


@contextmanager
def compiled_in_place(model: ng.Model) -> Iterator[None]:
    model.hf.compile(backend="eager")
    yield
    model.hf._compiled_call_impl = None


@contextmanager
def compiled_layer(model: ng.Model) -> Iterator[None]:
    model.sites[1].block.compile(backend="eager")
    yield
    model.sites[1].block._compiled_call_impl = None


@contextmanager
def compiled_forward(model: ng.Model) -> Iterator[None]:
    model.hf.forward = torch.compile(model.hf.forward, backend="eager")
    yield
    del model.hf.forward


@contextmanager
def replaced_module(model: ng.Model) -> Iterator[None]:
    mlp = model.sites[1].block.mlp
    before = mlp.c_proj
    mlp.c_proj = copy.deepcopy(before)
    yield
    mlp.c_proj = before


@contextmanager
def adapters(model: ng.Model) -> Iterator[None]:
    import peft  # noqa: PLC0415

    config = peft.LoraConfig(r=2, target_modules=["c_proj"], fan_in_fan_out=True)
    module = peft.get_peft_model(model.hf, config)
    yield
    module.unload()


REFUSED = {
    default_dtype: "default number type is torch.float64",
    returning_hook: r"the hook tests.models.test_state.scaled on transformer.h.1.* changes values",
    writing_hook: "written_over on transformer.h.1.mlp.c_proj changes values",
    pre_hook: r"pre_hook.*on transformer.h.0 changes values",
    hook_on_all_modules: "on all modules changes values",
    compiled_in_place: "was compiled with torch.compile",
    compiled_layer: "transformer.h.1 was compiled with torch.compile",
    compiled_forward: "was compiled with torch.compile",
    replaced_module: r"transformer.h.1.mlp.c_proj .*neuroglot.wrap_model again",
    adapters: r"merge_and_unload\(\)",
}


@pytest.mark.parametrize("operation", list(OPERATIONS))
@pytest.mark.parametrize("state", list(REFUSED))
def test_states_that_are_refused(state: Any, operation: str) -> None:
    model = wrapped()
    expected = OPERATIONS[operation](model)
    with state(model), pytest.raises(ng.NeuroglotError, match=REFUSED[state]) as caught:
        OPERATIONS[operation](model)
    assert "\n" not in str(caught.value)
    np.testing.assert_allclose(OPERATIONS[operation](model), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("state", [default_dtype, returning_hook, compiled_in_place, adapters])
def test_wrapping_in_these_states_is_refused(state: Any) -> None:
    model = wrapped()
    with state(model), pytest.raises(ng.NeuroglotError, match=REFUSED[state]):
        ng.wrap_model(model.hf, tokenizer())
    assert ng.wrap_model(model.hf, tokenizer(), name="x").identity == model.identity


def test_a_compiled_copy_of_the_module_is_refused() -> None:
    hf = tiny_hf("gpt2")
    with pytest.raises(ng.NeuroglotError, match="_orig_mod"):
        ng.wrap_model(torch.compile(hf, backend="eager"), tokenizer())


def test_compiled_code_that_goes_past_an_edit_is_noticed() -> None:
    """What torch.compile made of the model before does not run the hooks inside of it."""
    model = wrapped("llama")
    compiled = torch.compile(model.hf, backend="eager")
    ids = torch.tensor([[3, 4, 5]])
    with torch.inference_mode():
        before = compiled(ids).logits
        with (
            ng.edit(model, ng.Zero(some(model))),
            pytest.raises(ng.NeuroglotError, match=r"went past model.layers.0.mlp.down_proj"),
        ):
            compiled(ids)
        assert torch.equal(compiled(ids).logits, before)


def test_an_edit_that_nothing_ran_under_says_so() -> None:
    model = wrapped("llama")
    unedited = copy.deepcopy(model.hf)
    with (
        pytest.warns(UserWarning, match="no forward pass of 'x' ran"),
        ng.edit(model, ng.Zero(some(model))),
    ):
        unedited(torch.tensor([[3, 4, 5]]))


def test_a_pass_that_goes_past_an_edit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the reason: here the layer's code calls another function from the second pass on."""
    model = wrapped("llama")
    layer: Any = model.sites[1].block
    with ng.edit(model, ng.Zero(some(model))):
        model.hf(torch.tensor([[3, 4]]))
        monkeypatch.setattr(layer.mlp, "forward", lambda x: x)
        with pytest.raises(ng.NeuroglotError, match=r"went past model.layers.1.mlp.down_proj"):
            model.hf(torch.tensor([[3, 4]]))
        with pytest.raises(ng.NeuroglotError, match="went past"):
            ng.evaluate(model, TASK)
    with pytest.raises(ng.NeuroglotError, match=r"went past model.layers.1.mlp.down_proj"):
        ng.record(model, TASK)


def test_a_model_that_is_compiled_within_an_edit_is_told_of() -> None:
    model = wrapped("llama")

    def compiled_inside() -> None:
        with ng.edit(model, ng.Zero(some(model))):
            model.hf(torch.tensor([[3, 4]]))
            model.hf.compile(backend="eager")

    with pytest.raises(ng.NeuroglotError, match="was compiled"):
        compiled_inside()


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt"])
def test_copies_with_live_hooks_are_refused(name: str, tmp_path: Any) -> None:
    """OPT flattens its tokens, and a copied hook would look at the original's."""
    model = wrapped(name)
    with ng.edit(model, ng.Zero(some(model))):
        for copies in (
            lambda: ng.fragility(model, TASK),
            lambda: ng.align(model, TASK, method="translation", out=tmp_path / "a"),
            lambda: ng.wrap_model(copy.deepcopy(model.hf), tokenizer()),
            lambda: ng.record(copy.deepcopy(model), TASK),
        ):
            with pytest.raises(ng.NeuroglotError, match=r"being edited|carries hooks of neuroglot"):
                copies()
        expected = ng.evaluate(model, TASK)["log_prob"]
    np.testing.assert_array_equal(edited(model), expected)
    assert not (tmp_path / "a").exists()
    copied = ng.wrap_model(copy.deepcopy(model.hf), tokenizer(), name="x")
    np.testing.assert_array_equal(OPERATIONS["record"](copied), OPERATIONS["record"](model))


def test_two_wrappers_of_one_module_know_of_each_others_edits(tmp_path: Any) -> None:
    one = wrapped()
    other = ng.wrap_model(one.hf, tokenizer(), name="x")
    ng.record(one, TASK, out=tmp_path / "r")
    with (
        ng.edit(one, ng.Zero(some(one))),
        pytest.raises(ng.NeuroglotError, match="edits"),
    ):
        ng.record(other, TASK, out=tmp_path / "r")


RAGGED, EVEN = small_task(6), ng.ParallelTask.from_records(
    [
        {"id": f"i{k}", "prompts": {code: f"w{k + 2} w{k + n} w9" for n, code in enumerate("abc")}}
        for k in range(6)
    ],
    name="even",
)  # fmt: skip


@pytest.mark.parametrize("n_threads", [2, 4])
@pytest.mark.parametrize("task", [RAGGED, EVEN], ids=["ragged", "even"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "opt"])
@pytest.mark.concurrent
def test_threads_get_what_each_would_get_alone(
    name: str, task: ng.ParallelTask, n_threads: int
) -> None:
    """Recordings of two kinds from several threads, answers beside them."""
    model = wrapped(name)
    again = ng.wrap_model(model.hf, tokenizer(), name="x")
    operations: list[Callable[[ng.Model], Any]] = [
        lambda of: ng.record(of, task, reading=ng.Reading(keep_values=True)).values.to_numpy(),
        lambda of: ng.record(
            of, task, reading=ng.Reading(keep_values=True, site="coefficient")
        ).values.to_numpy(),
        lambda of: ng.evaluate(of, TASK)["log_prob"].to_numpy(),
    ]
    expected = [operation(model) for operation in operations]
    # Three in four are recordings, which with two and four threads and all models makes hundreds.
    jobs = [((0, 1, 2, 0)[i % 4], again if i % 2 else model) for i in range(34)]
    with ThreadPoolExecutor(n_threads) as threads:
        found = list(threads.map(lambda job: operations[job[0]](job[1]), jobs))
    for (i, _), values in zip(jobs, found, strict=True):
        np.testing.assert_array_equal(values, expected[i])


@pytest.mark.concurrent
def test_asyncio_threads_too() -> None:
    model = wrapped()
    reading = ng.Reading(keep_values=True)
    expected = ng.record(model, TASK, reading=reading).values

    async def both() -> list[Any]:
        runs = [asyncio.to_thread(ng.record, model, TASK, reading=reading) for _ in range(6)]
        return await asyncio.gather(*runs)

    for recording in asyncio.run(both()):
        np.testing.assert_array_equal(recording.values, expected)


@pytest.mark.concurrent
def test_a_thread_does_not_wait_for_a_block_that_may_wait_for_it() -> None:
    model = wrapped()
    with ng.edit(model, ng.Zero(some(model))), ThreadPoolExecutor(1) as other:
        with pytest.raises(ng.NeuroglotError, match="another thread is inside a block"):
            other.submit(ng.record, model, TASK).result(timeout=120)
        expected = ng.evaluate(model, TASK)["log_prob"]
    np.testing.assert_array_equal(edited(model), expected)
    with ThreadPoolExecutor(1) as other:
        assert len(other.submit(ng.record, model, TASK).result(timeout=120)) == 3


@pytest.mark.concurrent
def test_edits_and_recordings_in_threads_are_right_or_refused() -> None:
    model = wrapped("llama")
    plain, changed = OPERATIONS["record"](model), edited(model)
    refused: list[str] = []

    def run(i: int) -> None:
        operation, expected = (edited, changed) if i % 2 else (OPERATIONS["record"], plain)
        try:
            found = operation(model)
        except ng.NeuroglotError as error:
            refused.append(str(error))
        else:
            np.testing.assert_array_equal(found, expected)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(run, range(40)))
    assert len(refused) < 40
    assert all("another thread is inside a block" in message for message in refused)
    np.testing.assert_array_equal(OPERATIONS["record"](model), plain)


def test_what_is_no_model_is_told() -> None:
    with pytest.raises(ng.NeuroglotError, match="model is a str; expected what neuroglot"):
        ng.record("embedded/base", TASK)  # type: ignore[arg-type]


FORK = """
import multiprocessing as mp, sys, threading
import numpy as np, torch
torch.set_num_threads(2)
import neuroglot as ng
from tests.testing import small_task, tiny_model
model, task = tiny_model("llama"), small_task(3)
expected = ng.record(model, task, reading=ng.Reading(keep_values=True)).values.to_numpy()

def child(queue):
    try:
        queue.put(ng.record(model, task, reading=ng.Reading(keep_values=True)).values.to_numpy())
    except ng.NeuroglotError as error:
        queue.put(str(error))

def in_child():
    context = mp.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    found = queue.get(timeout=120)
    process.join()
    return found

def alike(found):
    return np.allclose(found, expected, atol=1e-5)

assert alike(in_child())
with model.units().editing(lambda _l, v: v * 0):
    assert not alike(in_child())
inside, leave = threading.Event(), threading.Event()

def hold():
    with model.units().editing(lambda _l, v: v * 0):
        inside.set()
        leave.wait()

thread = threading.Thread(target=hold)
thread.start()
inside.wait()
assert "forked while another thread ran" in in_child()
leave.set()
thread.join()
assert alike(in_child())
print("as expected")
"""


@pytest.mark.concurrent
def test_forked_processes() -> None:
    """What a thread was doing does not go on in a child, and its hooks are not run there."""
    found = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, text=True, timeout=300, check=False
    )
    assert "as expected" in found.stdout, found.stderr


def test_gradient_hooks_of_others_are_held_too() -> None:
    model = wrapped()
    expected = OPERATIONS["neuron_scores"](model)
    handle = model.sites[1].down.register_full_backward_hook(
        lambda _m, grads, _o: tuple(2 * grad for grad in grads)
    )
    with pytest.raises(ng.NeuroglotError, match="changes values"):
        OPERATIONS["neuron_scores"](model)
    handle.remove()
    np.testing.assert_array_equal(OPERATIONS["neuron_scores"](model), expected)


@pytest.mark.concurrent
def test_a_thread_that_calls_the_model_itself_is_told() -> None:
    """Hooks are met by every thread: a server that goes on answering would be edited too."""
    model = wrapped("llama")
    ids = torch.tensor([[3, 4, 5]])
    expected, errors = OPERATIONS["record"](model), []
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            try:
                with torch.inference_mode():
                    model.hf(ids)
            except ng.NeuroglotError as error:
                errors.append(str(error))

    server = threading.Thread(target=serve)
    server.start()
    try:
        found = [OPERATIONS["record"](model) for _ in range(10)]
        with ng.edit(model, ng.Zero(some(model))), ThreadPoolExecutor(1) as other:
            with pytest.raises(ng.NeuroglotError, match="in one thread while neuroglot edits"):
                other.submit(model.hf, ids).result(timeout=120)
            ng.evaluate(model, TASK)
    finally:
        stop.set()
        server.join()
    for values in found:
        np.testing.assert_array_equal(values, expected)
    assert all("in one thread while neuroglot edits or reads" in error for error in errors)


def test_models_that_share_layers_know_of_each_other() -> None:
    model = wrapped("llama")
    hf = tiny_hf("llama", seed=1)
    hf.model = model.hf.model
    other = ng.wrap_model(hf, tokenizer(), name="y")
    expected = OPERATIONS["record"](other)
    with (
        ng.edit(model, ng.Zero(some(model))),
        pytest.raises(ng.NeuroglotError, match="shares layers"),
    ):
        ng.record(other, TASK)
    np.testing.assert_array_equal(OPERATIONS["record"](other), expected)


def test_edits_may_end_in_any_order() -> None:
    model = wrapped("llama")
    one, two = (ng.edit(model, ng.Scale(some(model), factor)) for factor in (2.0, 3.0))
    one.__enter__()
    two.__enter__()
    ng.evaluate(model, TASK)
    one.__exit__(None, None, None)
    assert ng.record(model, TASK).attrs["edits"].startswith("scale by 3.0")
    two.__exit__(None, None, None)
    assert "edits" not in ng.record(model, TASK).attrs


def test_wrapping_within_an_edit_is_refused() -> None:
    model = wrapped("llama")
    with ng.edit(model, ng.Zero(some(model))):
        with pytest.raises(ng.NeuroglotError, match=r"is being edited .*leave the block"):
            ng.wrap_model(model.hf, tokenizer())
        ng.evaluate(model, TASK)


def test_weights_may_change_between_operations_of_one_block() -> None:
    model = wrapped("llama")
    with model.operating():
        before = model.identity
        model.sites[0].down.weight.data.zero_()
        assert model.identity != before


@pytest.mark.concurrent
def test_loading_in_another_number_type_beside_others() -> None:
    """Transformers sets the default number type of the whole process while it makes a model."""
    model = wrapped("llama")
    expected = OPERATIONS["evaluate"](model)
    with ThreadPoolExecutor(2) as threads:
        loads = [
            threads.submit(ng.load_model, "embedded/base", device="cpu", dtype=dtype)
            for dtype in ("bfloat16", "float32") * 2
        ]
        for _ in range(20):
            np.testing.assert_array_equal(OPERATIONS["evaluate"](model), expected)
        assert [load.result().dtype for load in loads] == ["bfloat16", "float32"] * 2


@pytest.mark.concurrent
def test_an_edit_that_another_thread_ends() -> None:
    """As where a generator is closed, or collected, elsewhere than it was begun."""
    model = wrapped("llama")
    expected = OPERATIONS["record"](model)

    def steps() -> Iterator[None]:
        with ng.edit(model, ng.Zero(some(model))):
            ng.evaluate(model, TASK)
            yield

    running = steps()
    next(running)
    with ThreadPoolExecutor(1) as other:
        other.submit(running.close).result(timeout=120)
        found = other.submit(OPERATIONS["record"], model).result(timeout=120)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(OPERATIONS["record"](model), expected)


def test_a_function_before_forward_hides_no_positions() -> None:
    """GPT-2 takes positions, which padding shifts where they are not passed."""
    model = wrapped()
    expected = OPERATIONS["evaluate"](model), edited(model)
    forward = model.hf.forward

    def passing_on(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    model.hf.forward = passing_on
    np.testing.assert_array_equal(OPERATIONS["evaluate"](model), expected[0])
    np.testing.assert_array_equal(edited(model), expected[1])


def attends_back(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
    kwargs["hidden_states"].add_(0)  # a tensor that is left as it is
    for module in _module.modules():
        module.scaling = 0.1


def test_hooks_that_change_something_else_are_refused() -> None:
    model = wrapped("llama")
    expected = OPERATIONS["evaluate"](model)
    attention: Any = model.hf.model.layers[1].self_attn
    before = attention.scaling
    handle = attention.register_forward_pre_hook(attends_back, with_kwargs=True)
    with pytest.raises(ng.NeuroglotError, match="attends_back"):
        ng.evaluate(model, TASK)
    handle.remove()
    attention.scaling = before
    np.testing.assert_array_equal(OPERATIONS["evaluate"](model), expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda hf: (torch.nn.DataParallel(hf), tokenizer()), "hf is a DataParallel"),
        (lambda _hf: (None, tokenizer()), "hf is a NoneType"),
        (lambda hf: (hf.model, tokenizer()), "gives no logits"),
        (lambda hf: (hf, None), "tokenizer is a NoneType"),
        (lambda hf: (hf, tokenizer().backend_tokenizer), "tokenizer is a Tokenizer"),
    ],
)
def test_what_cannot_be_wrapped_is_told(given: Any, message: str) -> None:
    with pytest.raises(ng.NeuroglotError, match=message):
        ng.wrap_model(*given(tiny_hf("llama")))


def test_pruned_projections_have_value_vectors() -> None:
    model = wrapped("llama")
    prune.l1_unstructured(model.sites[0].down, "weight", 0.5)
    vectors = model.sites[0].value_vectors()
    assert float((vectors == 0).float().mean()) == pytest.approx(0.5, abs=0.05)
    assert np.isfinite(ng.neuron_scores(model, TASK, score="contribution")).all()


def test_weights_of_inference_mode_have_no_gradients() -> None:
    with torch.inference_mode():
        model = wrapped("llama")
    with pytest.raises(ng.NeuroglotError, match=r"made in torch.inference_mode\(\)"):
        OPERATIONS["neuron_scores"](model)
