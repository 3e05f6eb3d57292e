"""Counts the bytes that devices exchange in a prompt-tuning step of the largest models.

    python benchmarks/collectives.py [--model t5_1_1_xxl] [--meshes 4x2 2x4 8x1+fsdp 4x2+fsdp]

The step is compiled for eight emulated devices from shapes alone, so no weights are made. The
collectives that XLA inserted are read from its text (`prompt_tuning.planning.hlo`); those in the
loop over layers are multiplied by its trip count. They are reported separately:

- across `data`, between hosts: the prompt's gradient, and a few scalars. The physical limit
  is `prompt x embed` float32 numbers;
- across `model`, between the devices that share one copy of the weights: activations;
- under FSDP, the weights gathered across `data`, one layer at a time.

Bytes are those of the result on each device. Numbers go to benchmarks/results/collectives.json.
"""

import argparse
import collections
import datetime
import json
import os
import platform
import re
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import jax
import jax.numpy as jnp

from prompt_tuning.methods.prompt import SoftPrompt
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import T5Config, get_config
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.parameters import parameter_axes
from prompt_tuning.models.t5 import T5
from prompt_tuning.parallel.mesh import DATA_AXIS, make_mesh, replicated
from prompt_tuning.parallel.rules import Layout
from prompt_tuning.planning.hlo import Program
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.optimizers import adafactor
from prompt_tuning.training.step import TrainState, make_train_step, prompt_loss_fn

RESULTS = Path(__file__).parent / "results" / "collectives.json"
MESHES = ["8x1", "4x2", "2x4", "1x8", "8x1+fsdp", "4x2+fsdp"]
# The program isn't run, and its collectives are in it before machine code is made.
_QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
BATCH, SOURCE, TARGET, PROMPT = 32, 256, 8, 100
COMPUTE = Compute(param_dtype="bfloat16", compute_dtype="bfloat16", remat=True)


def compiled_text(config: T5Config, layout: Layout, prompt: int, batch_size: int) -> str:
    """Returns the program of a training step on the layout's mesh."""
    mesh = layout.mesh
    assert isinstance(mesh, jax.sharding.Mesh)
    everywhere = replicated(mesh)
    method: Any = SoftPrompt(length=prompt, embed_dim=config.embed_dim)
    optimizer = adafactor()

    def shapes(rows_of: int, length: int, dtype: Any) -> jax.ShapeDtypeStruct:
        split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(DATA_AXIS))
        return jax.ShapeDtypeStruct((rows_of, length), dtype, sharding=split)

    batch = {
        "encoder_input_tokens": shapes(batch_size, SOURCE, jnp.int32),
        "decoder_input_tokens": shapes(batch_size, TARGET, jnp.int32),
        "decoder_target_tokens": shapes(batch_size, TARGET, jnp.int32),
        "decoder_loss_weights": shapes(batch_size, TARGET, jnp.float32),
    }
    state = jax.eval_shape(
        lambda key: TrainState.create(method.init(key, batch), optimizer), jax.random.key(0)
    )
    state = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), state
    )
    model = T5(config, COMPUTE, layout)
    step: Any = make_train_step(
        prompt_loss_fn(model, method, LossOptions()), optimizer, 1, everywhere
    )
    frozen = layout.abstract(abstract_params(config, COMPUTE))
    return step.lower(state, frozen, batch, jax.random.key(0)).compile(_QUICKLY).as_text()


def summary(text: str, layout: Layout) -> dict[str, Any]:
    """Adds the collectives up by the axes they cross and by kind."""
    totals: dict[str, collections.Counter] = {}
    for one in Program(text).collectives(layout.mesh):
        axes = "+".join(one.axes) or "none"
        totals.setdefault(axes, collections.Counter()).update(
            {f"{one.kind} count": one.times, f"{one.kind} bytes": one.times * one.bytes}
        )
    return {axes: dict(counts) for axes, counts in sorted(totals.items())}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="t5_1_1_xxl")
    parser.add_argument("--meshes", nargs="+", default=MESHES, help="DATAxMODEL, or with +fsdp")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the JSON goes")
    options = parser.parse_args(arguments)

    config = get_config(options.model)
    limit = 4 * PROMPT * config.embed_dim
    results = {
        "model": options.model,
        "batch": BATCH,
        "lengths": {"prompt": PROMPT, "source": SOURCE, "target": TARGET},
        "dtype": "bfloat16 weights and activations, rematerialized",
        "machine": f"{platform.machine()}, 8 emulated devices",
        "jax": jax.__version__,
        "date": datetime.date.today().isoformat(),
        "bytes of the prompt's gradient": limit,
        "meshes": {},
    }
    for name in options.meshes:
        sizes, _, fsdp = name.partition("+")
        data, model = map(int, sizes.split("x"))
        layout = Layout(
            mesh=make_mesh(data=data, model=model, devices=jax.devices()[: data * model]),
            axes_of=parameter_axes,
            fsdp=fsdp == "fsdp",
        )
        started = time.perf_counter()
        found = summary(compiled_text(config, layout, PROMPT, BATCH), layout)
        results["meshes"][name] = found
        crossing = sum(
            count
            for axes, counts in found.items()
            if DATA_AXIS in axes
            for kind, count in counts.items()
            if re.search(r"bytes$", kind)
        )
        print(
            f"{name:<9} across data {crossing:,} bytes a step, the prompt's gradient being "
            f"{limit:,}; compiled in {time.perf_counter() - started:.0f} s"
        )
        for axes, counts in found.items():
            print(f"          {axes}: {counts}", flush=True)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
