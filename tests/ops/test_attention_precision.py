"""PyTorch's switch for tf32 reaches the CUDA kernels' torch ops, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from suffuse import _library
from suffuse.ops import _attention_arguments as arguments
from suffuse.ops import attention, attention_decode

matmul = torch.backends.cuda.matmul


def use(precision: str) -> None:
    matmul.fp32_precision = precision


@pytest.fixture(autouse=True)
def switches() -> Iterator[None]:
    """PyTorch's defaults, before and after."""
    reset()
    yield
    reset()


def reset() -> None:
    torch._dynamo.reset()
    torch.backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    use("none")


class Calls(TorchDispatchMode):
    """What the ops of suffuse are given, by name: the arguments that are no tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "suffuse":
            rest = tuple(x for x in args if not isinstance(x, torch.Tensor))
            self.seen.append((func._opname, rest))
        return func(*args, **(kwargs or {}))


def tf32_of(call: tuple[str, tuple[Any, ...]]) -> bool:
    """Of a call's arguments; left out it is False."""
    schema = getattr(torch.ops.suffuse, call[0]).default._schema
    assert schema.arguments[-1].name == "tf32" and schema.arguments[-1].default_value is False
    return call[1][-1] is True


SWITCHES: dict[str, tuple[Callable[[], None], bool]] = {
    "default": (lambda: None, False),
    "matmul tf32": (lambda: use("tf32"), True),
    "matmul ieee": (lambda: use("ieee"), False),
    "allow_tf32": (lambda: setattr(matmul, "allow_tf32", True), True),
    "allow_tf32 off": (lambda: setattr(matmul, "allow_tf32", False), False),
    "high": (lambda: torch.set_float32_matmul_precision("high"), True),
    "medium": (lambda: torch.set_float32_matmul_precision("medium"), True),
    "highest": (lambda: torch.set_float32_matmul_precision("highest"), False),
    "everything": (lambda: setattr(torch.backends, "fp32_precision", "tf32"), True),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_every_way_to_say_it(name: str) -> None:
    switch, expected = SWITCHES[name]
    switch()
    assert arguments.allows_tf32() is expected


@pytest.mark.parametrize("precision", ["tf32", "ieee"])
def test_calls_on_cuda(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tensors that have no memory, so that no device is needed."""
    monkeypatch.setattr(_library, "LOADED", ["cpu", "cuda"])
    use(precision)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        with FakeTensorMode(), Calls() as calls:
            q = torch.empty(1, 5, 2, 8, device="cuda", dtype=dtype)
            attention(q, q, q)
            attention(q, q, q, softcap=2.0)
            attention_decode(q, q, q)
        names = ["attention_fwd", "attention_general_fwd", "attention_decode"]
        assert [name for name, _ in calls.seen] == names
        wanted = dtype == torch.float32 and precision == "tf32"
        assert [tf32_of(call) for call in calls.seen] == [wanted] * 3


@pytest.mark.parametrize("precision", ["tf32", "ieee"])
def test_calls_on_the_cpu_say_nothing(precision: str) -> None:
    use(precision)
    q = torch.randn(1, 5, 2, 8, requires_grad=True)
    with Calls() as calls:
        attention(q, q, q).sum().backward()
        attention(q, q, q, softcap=2.0).sum().backward()
        attention_decode(q.detach(), q.detach(), q.detach())
    assert len(calls.seen) == 5 and not any(tf32_of(call) for call in calls.seen)


@pytest.fixture
def like_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls on the CPU, whose kernels leave the argument alone, are made as if they were on CUDA."""
    monkeypatch.setattr(arguments, "on_cuda", lambda q, v: (True, arguments.allows_tf32()))


FEATURES: list[dict[str, Any]] = [{}, {"softcap": 2.0}]


@pytest.mark.parametrize("options", FEATURES, ids=["plain", "general"])
def test_gradients_have_the_forward_s_precision(options: dict[str, Any], like_cuda: None) -> None:
    """Also where the switch is another by then; second derivatives come back as well."""
    q = torch.randn(1, 5, 2, 8, requires_grad=True)
    for first, second in (("tf32", "ieee"), ("ieee", "tf32")):
        with Calls() as calls:
            use(first)
            out = attention(q, q, q, **options)
            use(second)
            (grad,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
        assert [tf32_of(call) for call in calls.seen] == [first == "tf32"] * 2
        assert torch.autograd.grad(grad.sum(), q)[0].isfinite().all()


@pytest.mark.parametrize("options", FEATURES, ids=["plain", "general"])
def test_under_torch_func(options: dict[str, Any], like_cuda: None) -> None:
    use("tf32")
    q = torch.randn(3, 1, 5, 2, 8)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return attention(x, x, x, **options).square().sum()

    with Calls() as calls:
        torch.func.vmap(torch.func.grad(loss))(q)
    assert calls.seen and all(tf32_of(call) for call in calls.seen)


@pytest.mark.parametrize("options", FEATURES, ids=["plain", "general"])
@pytest.mark.parametrize("legacy", [False, True])
def test_compiled_calls_follow_the_switch(
    options: dict[str, Any], legacy: bool, like_cuda: None
) -> None:
    graphs: list[bool] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        def run(*tensors: torch.Tensor) -> Any:
            with Calls() as calls:
                results = graph(*tensors)
            graphs.extend(tf32_of(call) for call in calls.seen)
            return results

        return run

    compiled = torch.compile(
        lambda x: attention(x, x, x, **options), fullgraph=True, backend=backend
    )
    for tf32 in (False, True, False, True):
        if legacy:
            torch.set_float32_matmul_precision("high" if tf32 else "highest")
        else:
            use("tf32" if tf32 else "ieee")
        compiled(torch.randn(1, 5, 2, 8))
    assert graphs == [False, True, False, True]


def test_importing_suffuse_does_not_import_the_compiler() -> None:
    """Which takes a second."""
    code = "import sys, suffuse; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.filterwarnings("ignore:.*no autograd.*")
def test_the_cpu_s_kernels_take_the_argument_and_do_not_change() -> None:
    q = torch.randn(1, 5, 2, 8)
    ops, plain = torch.ops.suffuse, (0.3, 2)
    general = (0.3, -1, -1, True, 2.0, *(None,) * 3, 0.0, *(None,) * 7)
    decode = (None, None, None, None, 0.3, -1, 0, 0.0, None, None, 0)
    calls: list[tuple[Any, tuple[Any, ...]]] = [
        (ops.attention_fwd, (q, q, q, *plain)),
        (ops.attention_general_fwd, (q, q, q, *general)),
        (ops.attention_decode, (q, q, q, *decode)),
    ]
    for options, backward in ((plain, ops.attention_bwd), (general, ops.attention_general_bwd)):
        out, lse = calls[0 if options is plain else 1][0](q, q, q, *options)
        end = () if options is plain else (False,)
        calls.append((backward, (torch.ones_like(out), None, q, q, q, out, lse, *options, *end)))
    for op, call in calls:
        torch.library.opcheck(op, (*call, True))
        for with_it, without in zip(op(*call, True), op(*call), strict=True):
            assert torch.equal(with_it, without)
