"""Compiles every kind of program for TPUs and GPUs, with their own compilers, and without devices.

    python benchmarks/accelerators.py [--parts targets programs populations growth] [--only WORD]

It needs `libtpu` for TPUs and JAX's CUDA plugin for GPUs (`prompt_tuning/planning/compilers.py`);
programs whose compiler isn't installed are left as they are, so each may be installed in an
environment of its own. Parts:

- targets: the steps that have a target for their time or memory;
- programs: training steps of all sizes and methods, decoding, ranking, model tuning, pre-training;
- populations: K members in one program, against one;
- growth: the step's cycles by input, prompt, batch and model.

Nothing runs. Memory is exact: it is the compiler's. Times are estimates without communication: of
TPUs, the compiler's cycles; of a Pallas kernel, which has none, its FLOPs at the rate of its
schedule; of GPUs, the roofline of each kernel, the least that it can take.

Each result is written to benchmarks/results/accelerators.json as it comes, with the commit and the
compiler, and replaces the one before. At the end `accelerators_page.py` writes
docs/accelerators.md from them, and prints the table of targets against what the compilers say.
A program already compiled at this commit isn't compiled again; with --missing, none that has a
result.
"""

import argparse
import dataclasses
import importlib.metadata
import inspect
import itertools
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prompt_tuning.analysis.flops import step_flops
from prompt_tuning.evaluation.rank import label_scores
from prompt_tuning.methods.adapter import PLACEMENTS, BottleneckAdapter
from prompt_tuning.methods.attention_mixed import AttentionMixedPrompt, MixedPrompt
from prompt_tuning.methods.base import bind
from prompt_tuning.methods.deep_prompt import ATTENTION, DeepPrompt
from prompt_tuning.methods.dept import DePT
from prompt_tuning.methods.dora import DoRA
from prompt_tuning.methods.factored import FactoredPrompt
from prompt_tuning.methods.ia3 import IA3
from prompt_tuning.methods.llama_adapter import LLaMAAdapter
from prompt_tuning.methods.lora import LoRA
from prompt_tuning.methods.multitask import MultitaskPrompt
from prompt_tuning.methods.p_tuning import PTuning
from prompt_tuning.methods.prefix import PrefixTuning
from prompt_tuning.methods.prompt import SoftPrompt
from prompt_tuning.methods.residual import ResidualPrompt
from prompt_tuning.methods.smop import SMoP
from prompt_tuning.methods.vera import VeRA
from prompt_tuning.methods.weights import Weights, select_weights
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import T5Config, get_config
from prompt_tuning.models.decoding import DecodingOptions, generate
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.parameters import parameter_axes, parameter_shapes
from prompt_tuning.models.t5 import T5
from prompt_tuning.models.targets import (
    attention_blocks,
    blocks,
    gated_blocks,
    projections,
    scalable,
    select_targets,
)
from prompt_tuning.parallel.accelerators import ACCELERATORS, Accelerator
from prompt_tuning.parallel.mesh import DATA_AXIS, make_mesh
from prompt_tuning.parallel.rules import Layout
from prompt_tuning.planning.compilers import (
    Analysis,
    DoesNotFit,
    compiled,
    devices_of,
    environment,
    missing,
)
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.optimizers import adafactor
from prompt_tuning.training.side_by_side import make_side_by_side_step
from prompt_tuning.training.step import (
    ProgramKey,
    TrainState,
    make_train_step,
    model_loss_fn,
    prompt_loss_fn,
)

RESULTS = Path(__file__).parent / "results" / "accelerators.json"
ROOT = Path(__file__).parent.parent
_MARK = "compiled: "
"""Precedes a result in the output of a process that compiles; the compilers print there too."""


def _soft(placement: str) -> Callable[[T5Config], SoftPrompt]:
    return lambda c: SoftPrompt(length=100, embed_dim=c.embed_dim, placement=placement)


def _p_tuning(encoder: str) -> Callable[[T5Config], PTuning]:
    return lambda c: PTuning(
        length=100, embed_dim=c.embed_dim, hidden_dim=c.embed_dim // 2, encoder=encoder
    )


def _weights(*patterns: str) -> Callable[[T5Config], Weights]:
    return lambda c: Weights(shapes=select_weights(parameter_shapes(c), patterns))


METHODS: dict[str, Callable[[T5Config], Any]] = {
    "soft prompt": _soft("before"),
    "soft prompt after the input": _soft("after"),
    "soft prompt around the input": _soft("around"),
    "soft prompt in the decoder": _soft("decoder"),
    "soft prompts in both stacks": _soft("encoder_and_decoder"),
    "p-tuning, LSTM": _p_tuning("lstm"),
    "p-tuning, MLP": _p_tuning("mlp"),
    "residual prompt": lambda c: ResidualPrompt(length=10, embed_dim=c.embed_dim, bottleneck=800),
    "mixed prompt": lambda c: MixedPrompt(length=100, embed_dim=c.embed_dim, sources=4),
    "attention-mixed prompt": lambda c: AttentionMixedPrompt(
        length=100, embed_dim=c.embed_dim, sources=4, temperature=math.e * c.embed_dim
    ),
    "multitask prompt": lambda c: MultitaskPrompt(length=100, embed_dim=c.embed_dim, tasks=8),
    "factored prompt": lambda c: FactoredPrompt(
        length=50, embed_dim=c.embed_dim, parts=(("en", "qa"), ("en", "span"), ("th", "span"))
    ),
    "deep prompt": lambda c: DeepPrompt(
        length=20, targets=select_targets(attention_blocks(c), ATTENTION)
    ),
    "prefix tuning": lambda c: PrefixTuning(
        length=10, targets=select_targets(attention_blocks(c), ATTENTION)
    ),
    "LLaMA-Adapter": lambda c: LLaMAAdapter(
        targets=select_targets(gated_blocks(c), ("attention/prompt", "self_attention/prompt"))
    ),
    "LoRA": lambda c: LoRA(targets=select_targets(projections(c), ("query", "value"))),
    "DoRA": lambda c: DoRA(targets=select_targets(projections(c), ("query", "value"))),
    "VeRA": lambda c: VeRA(targets=select_targets(projections(c), ("query", "value"))),
    "SMoP": lambda c: SMoP(length=5, embed_dim=c.embed_dim),
    "DePT": lambda c: DePT(length=40, embed_dim=c.embed_dim, positions=512),
    "IA3": lambda c: IA3(targets=scalable(c)),
    "adapter": lambda c: BottleneckAdapter(
        targets=select_targets(blocks(c), PLACEMENTS["houlsby"])
    ),
    "norm scales": _weights("*norm/scale"),
    "model tuning": _weights("*"),
}
"""By name, in the sizes of `configs/methods`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A program and the devices to compile it for.

    Attributes:
      machine: the name of an accelerator.
      model: the name of a T5.
      kind: "step", "pre-training", "greedy", "beam", "sample" or "rank".
      data, parallel: the mesh, data and model parallelism.
      members: of a population; 0 for a single run.
      parts: microbatches of a batch.
      layers: of each stack; all if 0.
      dtype: of weights and activations.
    """

    machine: str
    model: str = "t5_1_1_small"
    kind: str = "step"
    method: str = "soft prompt"
    data: int = 1
    parallel: int = 1
    fsdp: bool = False
    batch: int = 32
    source: int = 512
    target: int = 8
    prompt: int = 100
    parts: int = 1
    members: int = 0
    layers: int = 0
    dtype: str = "bfloat16"
    remat: bool = False
    unroll: int = 1
    dropout: float = 0.0
    quantization: str = ""

    @property
    def fields(self) -> dict[str, Any]:
        """The attributes that aren't the defaults."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }

    @property
    def key(self) -> str:
        """The name of its result."""
        return " ".join(f"{name}={value}" for name, value in self.fields.items())

    @property
    def accelerator(self) -> Accelerator:
        return next(each for each in ACCELERATORS if each.name == self.machine)

    @property
    def config(self) -> T5Config:
        layers = {"num_encoder_layers": self.layers, "num_decoder_layers": self.layers}
        return get_config(self.model, **(layers if self.layers else {}))

    @property
    def compute(self) -> Compute:
        return Compute(
            param_dtype=self.dtype,
            compute_dtype=self.dtype,
            attention="flash",
            remat=self.remat,
            unroll=self.unroll,
            dropout_rate=self.dropout,
            quantization=self.quantization,
        )

    @property
    def least_flops(self) -> float | None:
        """The fewest FLOPs of a step's matrix products on one device."""
        if self.kind != "step" or self.method != "soft prompt":
            return None
        least = step_flops(
            self.config,
            batch=self.batch * max(self.members, 1),
            prompt=self.prompt,
            source=self.source,
            target=self.target,
            remat=self.remat,
        )
        return least.total / (self.data * self.parallel)

    def lowered(self) -> tuple[jax.stages.Lowered, Mesh]:
        """Returns the program of shapes laid out over devices that aren't there."""
        mesh = make_mesh(
            data=self.data,
            model=self.parallel,
            devices=devices_of(self.accelerator, self.data * self.parallel),
        )
        layout = Layout(mesh=mesh, axes_of=parameter_axes, fsdp=self.fsdp)
        model = T5(self.config, self.compute, *([layout] if mesh.size > 1 else []))
        kinds = {"step": self._step, "pre-training": self._pretraining, "rank": self._rank}
        return kinds.get(self.kind, self._decoding)(model, layout), mesh

    def _batch(self, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
        lengths = {
            "encoder_input_tokens": (self.source, jnp.int32),
            "decoder_input_tokens": (self.target, jnp.int32),
            "decoder_target_tokens": (self.target, jnp.int32),
            "decoder_loss_weights": (self.target, jnp.float32),
        }
        members = (self.members,) * bool(self.members)
        shapes = {
            name: jax.ShapeDtypeStruct((*members, self.batch, length), dtype)
            for name, (length, dtype) in lengths.items()
        }
        if self.method in ("multitask prompt", "factored prompt"):
            shapes["task"] = jax.ShapeDtypeStruct((*members, self.batch), jnp.int32)
        by_member = self.members and self.members % self.data == 0
        spec = PartitionSpec(*() if by_member or not members else (None,), DATA_AXIS)
        return _laid_out(shapes, mesh, spec)

    def _make_method(self) -> Any:
        if self.method == "soft prompt":
            return SoftPrompt(length=self.prompt, embed_dim=self.config.embed_dim)
        return METHODS[self.method](self.config)

    def _trained(self, batch: Any) -> tuple[Any, Any]:
        """Returns the method with its constants and the shapes of its trainable parameters."""
        method = self._make_method()
        shapes = jax.eval_shape(method.init, jax.random.key(0), batch)
        if set(shapes) == {"params"}:
            return method, shapes
        return bind(method, method.init(jax.random.key(0), jax.tree.map(_zeros, batch)))

    def _step(self, model: T5, layout: Layout) -> jax.stages.Lowered:
        mesh, optimizer = layout.mesh, adafactor(0.3)
        batch = self._batch(mesh)
        one = {name: jax.ShapeDtypeStruct(x.shape[-2:], x.dtype) for name, x in batch.items()}
        method, trained = self._trained(one)
        state = jax.eval_shape(lambda: TrainState.create(jax.tree.map(_zeros, trained), optimizer))
        weights = layout.abstract(abstract_params(self.config, self.compute))
        shardings = layout.trained_shardings(state, weights)
        state = jax.tree.map(_with_sharding, state, shardings)
        everywhere = NamedSharding(mesh, PartitionSpec())
        loss_fn = prompt_loss_fn(model, method, LossOptions())
        if not self.members:
            step = make_train_step(loss_fn, optimizer, self.parts)
            program = jax.jit(
                inspect.unwrap(step), donate_argnums=0, out_shardings=(shardings, everywhere)
            )
            return program.lower(state, weights, batch, _key(everywhere))
        step = make_side_by_side_step(
            [ProgramKey.of(loss_fn, optimizer)] * self.members, self.parts
        )
        program = jax.jit(
            inspect.unwrap(step), out_shardings=((shardings,) * self.members, everywhere)
        )
        words = jax.random.key_data(jax.random.key(0)).shape
        data = jax.ShapeDtypeStruct((self.members, *words), jnp.uint32, sharding=everywhere)
        rates = jax.ShapeDtypeStruct((self.members,), jnp.float32, sharding=everywhere)
        return program.lower((state,) * self.members, weights, batch, data, rates)

    def _pretraining(self, model: T5, layout: Layout) -> jax.stages.Lowered:
        mesh, optimizer = layout.mesh, adafactor(0.3)
        everywhere = NamedSharding(mesh, PartitionSpec())
        state = jax.eval_shape(
            lambda params: TrainState.create(params, optimizer),
            abstract_params(self.config, self.compute),
        )
        state = _laid_out(state, mesh, PartitionSpec())
        step = make_train_step(model_loss_fn(model, LossOptions()), optimizer, self.parts)
        program = jax.jit(inspect.unwrap(step), donate_argnums=0, out_shardings=everywhere)
        return program.lower(state, None, self._batch(mesh), _key(everywhere))

    def _answers(self, layout: Layout) -> tuple[Any, Any, Any]:
        batch, mesh = self._batch(layout.mesh), layout.mesh
        one = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in batch.items()}
        method, trained = self._trained(one)
        injection = jax.eval_shape(method.apply, trained, one)
        weights = layout.abstract(abstract_params(self.config, self.compute))
        return weights, batch["encoder_input_tokens"], _laid_out(injection, mesh, PartitionSpec())

    def _decoding(self, model: T5, layout: Layout) -> jax.stages.Lowered:
        options = DecodingOptions(max_length=32, method=self.kind)
        key = _key(NamedSharding(layout.mesh, PartitionSpec())) if self.kind == "sample" else None
        return generate.lower(model, *self._answers(layout), options, key)

    def _rank(self, model: T5, layout: Layout) -> jax.stages.Lowered:
        labels = jax.ShapeDtypeStruct((4, self.target), jnp.int32)
        labels = _laid_out(labels, layout.mesh, PartitionSpec())

        def scores(weights, tokens, injection, labels):
            return label_scores(model, weights, tokens, injection, labels)

        return jax.jit(scores).lower(*self._answers(layout), labels)


def _zeros(leaf: Any) -> jax.Array:
    return jnp.zeros(leaf.shape, leaf.dtype)


def _with_sharding(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _laid_out(tree: Any, mesh: Any, spec: PartitionSpec) -> Any:
    return jax.tree.map(lambda leaf: _with_sharding(leaf, NamedSharding(mesh, spec)), tree)


def _key(sharding: NamedSharding) -> Any:
    return _with_sharding(jax.eval_shape(lambda: jax.random.key(0)), sharding)


def result_of(case: Case) -> dict[str, Any]:
    """Compiles a program in this process and returns what the compiler says."""
    start = time.perf_counter()
    lowered, mesh = case.lowered()
    found: dict[str, Any] = {"least_products": case.least_flops}
    try:
        analysis = compiled(lowered)
    except DoesNotFit as error:
        found["refused"] = str(error)
    except jax.errors.JaxRuntimeError as error:
        found["failed"] = str(error).split("\n", 1)[0][:300]
    else:
        found |= _numbers(analysis, case.accelerator, mesh)
    return {**found, "compile_seconds": round(time.perf_counter() - start, 1)}


def _numbers(analysis: Analysis, accelerator: Accelerator, mesh: Mesh) -> dict[str, Any]:
    found = {
        name: getattr(analysis, name)
        for name in ("arguments", "outputs", "temporaries", "cycles", "flops", "moved")
    }
    pallas = [kernel for kernel in analysis.program.kernels() if kernel.pallas]
    return {
        **found,
        "pallas_calls": sum(kernel.times for kernel in pallas),
        "pallas_flops": sum(kernel.times * kernel.flops for kernel in pallas),
        "seconds": analysis.seconds(accelerator),
        "seconds_of_rooflines": analysis.seconds(accelerator, at_peak=True),
        "sent": sum(each.times * each.sent for each in analysis.program.collectives(mesh)),
        "parts": [
            [name, phase, round(part, 7)] for name, phase, part in analysis.parts(accelerator)[:8]
        ],
    }


V5E = {"machine": "v5e", "data": 4}
SIZES = ("small", "base", "large", "xl", "xxl")
POD = {"machine": "v5e", "model": "t5_1_1_xxl", "data": 4, "parallel": 4}

TARGETS = [
    Case(**V5E, unroll=0),
    Case(**V5E, model="t5_1_1_base", unroll=0),
    Case(**V5E, model="t5_1_1_large", unroll=0),
    Case(**POD),
    Case(**POD, remat=True),
    Case(machine="H200"),
    Case(machine="H200", model="t5_1_1_xxl"),
    Case(machine="H200", model="t5_1_1_xxl", remat=True),
]

MESHES: dict[str, dict[str, dict[str, Any]]] = {
    "v5e": {
        "small": {"data": 4, "unroll": 0},
        "base": {"data": 4, "unroll": 0},
        "large": {"data": 4, "unroll": 0},
        "xl": {"data": 4, "parallel": 2},
        "xxl": {"data": 4, "parallel": 4},
    },
    "v4": {
        "small": {"data": 4},
        "base": {"data": 4},
        "large": {"data": 4},
        "xl": {"data": 4},
        "xxl": {"data": 4, "parallel": 2},
    },
    "v5p": {name: {"data": 4} for name in SIZES},
    "v6e": {
        "small": {"data": 4},
        "base": {"data": 4},
        "large": {"data": 4},
        "xl": {"data": 4},
        "xxl": {"data": 4, "parallel": 2},
    },
    "H100": {**{name: {} for name in SIZES}, "xxl": {"data": 8}},
    "A100-80GB": {"small": {}, "large": {}, "xxl": {"data": 8}},
    "H200": {"small": {}, "large": {}, "xxl": {}},
}
"""The mesh one would use for a batch of 32, by accelerator and size."""


def _sizes() -> Iterator[Case]:
    for machine, meshes in MESHES.items():
        for size, fields in meshes.items():
            yield Case(machine=machine, model=f"t5_1_1_{size}", **fields)


KINDS: list[dict[str, Any]] = [
    *({"method": name} for name in METHODS if name != "soft prompt"),
    {"parts": 4},
    {"dropout": 0.1},
    {"dtype": "float32"},
    {"quantization": "int8"},
    {"quantization": "nf4"},
    {"data": 4, "fsdp": True},
    {"members": 4},
    {"kind": "greedy"},
    {"kind": "beam"},
    {"kind": "sample"},
    {"kind": "rank"},
    {"kind": "pre-training", "target": 114},
    {"kind": "pre-training", "target": 114, "data": 4, "dtype": "float32"},
    {"method": "model tuning", "data": 4, "dtype": "float32"},
]
"""Programs of Small."""


def kinds(machine: str) -> list[Case]:
    """Returns Small's programs on an accelerator."""
    return [Case(machine=machine, **fields) for fields in KINDS]


_LARGEST = {"model": "t5_1_1_xxl"}
OTHERS = [
    Case(**V5E, model="t5_1_1_large", fsdp=True),
    Case(machine="v5e", data=16, fsdp=True, remat=True, **_LARGEST),
    Case(machine="v5e", data=4, parallel=4, kind="greedy", **_LARGEST),
    Case(machine="v5e", data=4, parallel=4, kind="rank", **_LARGEST),
    Case(machine="v5e", quantization="nf4", remat=True, batch=8, **_LARGEST),
    Case(machine="H100", quantization="int8", remat=True, **_LARGEST),
    Case(machine="H100", data=8, fsdp=True, **_LARGEST),
    Case(machine="H100", kind="greedy", **_LARGEST),
]

MEMBERS = (1, 4, 16)
POPULATIONS = [
    Case(machine=machine, model=f"t5_1_1_{size}", source=source, batch=8, members=members)
    for size in ("small", "base")
    for source in (64, 256)
    for machine in ("v5e", "H100")
    for members in MEMBERS
]

LONG_INPUTS = [
    Case(machine="v5e", model="t5_1_1_large", source=4096, batch=batch, remat=remat)
    for batch, remat in ((32, True), (8, True), (1, False), (1, True))
]
GROWTH: dict[str, Sequence[int]] = {
    "source": (128, 512, 1024, 2048, 4096),
    "prompt": (1, 20, 100, 1000),
    "batch": (1, 8, 32, 128, 512),
}


def _growth() -> Iterator[Case]:
    base = Case(machine="v5e")
    for name, values in GROWTH.items():
        for value in values:
            yield dataclasses.replace(base, **{name: value})
    for size in ("base", "large", "xl"):
        yield Case(machine="v5e", model=f"t5_1_1_{size}")
    yield from LONG_INPUTS


PARTS: dict[str, list[Case]] = {
    "targets": TARGETS,
    "programs": [
        *_sizes(),
        *itertools.chain.from_iterable(map(kinds, ("v5e", "H100"))),
        *OTHERS,
    ],
    "populations": POPULATIONS,
    "growth": list(_growth()),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--only", default="", help="programs whose name matches this expression")
    parser.add_argument("--missing", action="store_true", help="only programs without a result")
    parser.add_argument("--layers", type=int, default=0, help="of each stack, to try the benchmark")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the JSON goes")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside:
        _compile_those_given()
        return

    cases = list(dict.fromkeys(case for part in options.parts for case in PARTS[part]))
    cases = [dataclasses.replace(case, layers=options.layers) for case in cases]
    cases = [case for case in cases if re.search(options.only, case.key)]
    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    commit = _commit()
    waiting = [
        case
        for case in cases
        if case.key not in results or not (options.missing or results[case.key]["commit"] == commit)
    ]
    for reason in sorted({missing(case.accelerator) for case in waiting} - {""}):
        print(f"Left as they are, programs whose compiler isn't installed: {reason}")
    waiting = [case for case in waiting if not missing(case.accelerator)]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for case, result in compile_apart(waiting):
        results[case.key] = {
            "case": case.fields,
            **result,
            "commit": commit,
            "compiler": _version(case.accelerator),
            "date": time.strftime("%Y-%m-%d"),
        }
        options.output.write_text(json.dumps(results, indent=1) + "\n")
        print(f"{case.key}: {summary(result)}", flush=True)
    if options.output == RESULTS:
        subprocess.run(
            [sys.executable, str(ROOT / "benchmarks" / "accelerators_page.py")], check=True
        )


def compile_apart(cases: Sequence[Case]) -> Iterator[tuple[Case, dict[str, Any]]]:
    """Compiles programs in processes with their compilers' environments; yields as they finish.

    A process that a compiler ends is one failed program; another one compiles those after it.
    """
    waiting = list(cases)
    while waiting:
        first = environment(waiting[0].accelerator, 1)
        group = [case for case in waiting if environment(case.accelerator, 1) == first]
        command = [sys.executable, __file__, "--inside"]
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **first},
        ) as process:
            assert process.stdin and process.stdout
            process.stdin.write(json.dumps([case.fields for case in group]))
            process.stdin.close()
            done = 0
            for line in process.stdout:
                if line.startswith(_MARK):
                    yield group[done], json.loads(line.removeprefix(_MARK))
                    waiting.remove(group[done])
                    done += 1
        if done < len(group):
            yield group[done], {"failed": f"The process ended with status {process.returncode}."}
            waiting.remove(group[done])


def _compile_those_given() -> None:
    for fields in json.load(sys.stdin):
        print(_MARK + json.dumps(result_of(Case(**fields))), flush=True)
        jax.clear_caches()


def summary(result: dict[str, Any]) -> str:
    """Returns a result in a line."""
    if "temporaries" not in result:
        return result.get("refused") or result["failed"]
    text = f"{result['arguments'] / 1e9:.2f} + {result['temporaries'] / 1e9:.2f} GB, "
    text += f"{result['seconds'] * 1e3:.1f} ms"
    if result["cycles"]:
        text += f", {result['cycles'] / 1e6:.1f} M cycles, {result['pallas_calls']} Pallas calls"
    return f"{text}; compiled in {result['compile_seconds']} s"


def _commit() -> str:
    command = ["git", "log", "-1", "--format=%h", "--", "prompt_tuning"]
    return subprocess.run(
        command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def _version(accelerator: Accelerator) -> str:
    names = ("jax-cuda13-pjrt", "nvidia-cuda-nvcc") if accelerator.is_gpu else ("libtpu",)
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", *names))


if __name__ == "__main__":
    main()
