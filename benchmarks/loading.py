"""Measures the memory that loading a frozen model takes, relative to the size of the loaded model.

    python benchmarks/loading.py [--quick] [--forms huggingface t5x safetensors]

A T5 1.1 of a billion parameters is made up with random weights, one form at a time in a temporary
folder, and loaded in a fresh process:

- huggingface: safetensors in two shards with an index, float32, loaded as they are;
- t5x: an index and a gzipped zarr folder an array, float32, loaded as bfloat16;
- safetensors: our own file, bfloat16, loaded as it is.

The result is the process's peak resident memory (VmHWM), which includes the interpreter, JAX and
mapped pages of the files. The numbers are also written to benchmarks/results/loading.json.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import ml_dtypes
import msgpack
import numpy as np
import tensorstore

from prompt_tuning.checkpoints.arrays.safetensors_files import write_safetensors
from prompt_tuning.checkpoints.frozen.huggingface import huggingface_shapes
from prompt_tuning.checkpoints.frozen.layouts import layer_shapes
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.checkpoints.frozen.weights import CONFIG_KEY, unflatten
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.parameters import parameter_shapes

RESULTS = Path(__file__).parent / "results" / "loading.json"
FLOAT32, BFLOAT16 = np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)

FULL = T5Config(
    name="made_up_1b",
    embed_dim=1024,
    num_heads=16,
    mlp_dim=4352,
    num_encoder_layers=24,
    num_decoder_layers=24,
)
QUICK = T5Config(
    name="quick",
    vocab_size=512,
    embed_dim=64,
    num_heads=4,
    head_dim=16,
    mlp_dim=128,
    num_encoder_layers=2,
    num_decoder_layers=2,
)


def random_arrays(
    shapes: dict[str, tuple[int, ...]], dtype: np.dtype
) -> Iterator[tuple[str, np.ndarray]]:
    numbers = np.random.default_rng(0)
    for name, shape in shapes.items():
        yield name, numbers.random(shape, np.float32).astype(dtype)


def make_huggingface(folder: Path, config: T5Config) -> None:
    """Writes config.json and two shards of float32 safetensors."""
    shapes = huggingface_shapes(config)
    fields = {
        "model_type": "t5",
        "vocab_size": config.vocab_size,
        "d_model": config.embed_dim,
        "d_kv": config.head_dim,
        "d_ff": config.mlp_dim,
        "num_heads": config.num_heads,
        "num_layers": config.num_encoder_layers,
        "relative_attention_num_buckets": config.relative_attention_num_buckets,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    }
    weight_map = {}
    for number, part in enumerate((list(shapes)[::2], list(shapes)[1::2]), start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        held = {name: shapes[name] for name in part}
        dtypes = dict.fromkeys(part, FLOAT32)
        write_safetensors(folder / file, random_arrays(held, FLOAT32), held, dtypes, {})
        weight_map |= dict.fromkeys(part, file)
    (folder / "config.json").write_text(json.dumps(fields))
    index = json.dumps({"weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(index)


def make_t5x(folder: Path, config: T5Config) -> None:
    """Writes a msgpack index and gzipped zarr folders of float32, in chunks of at most 64 MiB.

    The values are rounded to bfloat16, so that gzip compresses them about as well as trained ones.
    """
    index = {}
    for name, array in random_arrays(layer_shapes(config), BFLOAT16):
        inside = f"target.{name.replace('/', '.')}"
        rows = max(1, min(len(array), 2**26 // (4 * array[0].size)))
        spec = {
            "driver": "zarr",
            "kvstore": {"driver": "file", "path": str(folder / inside)},
            "metadata": {
                "chunks": [rows, *array.shape[1:]],
                "compressor": {"id": "gzip", "level": 1},
            },
        }
        store = tensorstore.open(spec, create=True, dtype="float32", shape=array.shape).result()
        store.write(array.astype(np.float32)).result()
        index[name] = {"driver": "zarr", "kvstore": {"driver": "gfile", "path": inside}}
    content = {"version": 3, "optimizer": {"target": unflatten(index)}}
    (folder / "checkpoint").write_bytes(msgpack.packb(content))


def make_safetensors(folder: Path, config: T5Config) -> None:
    """Writes one of our own files in bfloat16."""
    shapes = parameter_shapes(config)
    dtypes = dict.fromkeys(shapes, BFLOAT16)
    metadata = {CONFIG_KEY: json.dumps(config.to_json())}
    arrays = random_arrays(shapes, BFLOAT16)
    write_safetensors(folder / "model.safetensors", arrays, shapes, dtypes, metadata)


# How each form is made, what is loaded, and in which dtype.
FORMS = {
    "huggingface": (make_huggingface, "", None),
    "t5x": (make_t5x, "", "bfloat16"),
    "safetensors": (make_safetensors, "model.safetensors", None),
}


def highest_resident() -> int:
    """Returns the peak resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status").read_text()
    (kilobytes,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(kilobytes) * 1024


def load(path: str, dtype: str | None) -> dict[str, float | int]:
    """Loads a model in this process and returns its time and memory."""
    jax.block_until_ready(jax.numpy.zeros(1))
    before = highest_resident()
    start = time.perf_counter()
    _, frozen = load_frozen(path, dtype=dtype)
    seconds = time.perf_counter() - start
    leaves = jax.tree.leaves(frozen)
    loaded = sum(leaf.nbytes for leaf in leaves)
    peak = highest_resident()
    return {
        "parameters": sum(leaf.size for leaf in leaves),
        "bytes_loaded": loaded,
        "bytes_before_loading": before,
        "peak_bytes": peak,
        "peak_over_loaded": peak / loaded,
        "seconds": seconds,
    }


def measure(form: str, config: T5Config) -> dict[str, float | int]:
    """Makes the model in a form and loads it in a fresh process."""
    make, name, dtype = FORMS[form]
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), config)
        os.sync()
        command = [sys.executable, __file__, "--load", str(Path(folder) / name)]
        done = subprocess.run(
            [*command, *(["--dtype", dtype] if dtype else [])],
            check=True,
            stdout=subprocess.PIPE,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
    return json.loads(done.stdout)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny model, to try the benchmark")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the JSON goes")
    parser.add_argument("--load", help="load this in this process, and print what it took")
    parser.add_argument("--dtype", help="with --load")
    options = parser.parse_args(arguments)
    if options.load:
        print(json.dumps(load(options.load, options.dtype)))
        return

    config = QUICK if options.quick else FULL
    results = {}
    for form in options.forms:
        results[form] = found = measure(form, config)
        print(
            f"{form:<12} {found['parameters'] / 1e9:.2f}B parameters, "
            f"{found['bytes_loaded'] / 1e9:.2f} GB: peak {found['peak_bytes'] / 1e9:.2f} GB, "
            f"{found['peak_over_loaded']:.3f} x, {found['seconds']:.0f} s"
        )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    machine = {"model": config.name, "machine": platform.machine(), "jax": jax.__version__}
    options.output.write_text(json.dumps({**machine, "forms": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
