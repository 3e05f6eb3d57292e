"""What the benchmark of collectives finds in a step of T5 Small, from shapes alone."""

import json
import os
import subprocess
import sys

from prompt_tuning.models.config import get_config

SMALL = get_config("t5_1_1_small")
# Self-attention's four kernels and the gated block's three; the decoder has a second attention.
KERNELS = 7 * SMALL.num_encoder_layers + 11 * SMALL.num_decoder_layers


def test_the_gradient_alone_crosses_data_and_fsdp_gathers_a_kernel_twice(checkout, tmp_path):
    path = tmp_path / "collectives.json"
    script = checkout / "benchmarks" / "collectives.py"
    command = [sys.executable, str(script), "--model=t5_1_1_small", f"--output={path}"]
    subprocess.run(
        [*command, "--meshes", "8x1", "8x1+fsdp"],
        check=True,
        timeout=300,
        # The script emulates eight devices, where nobody else has said how many.
        env={name: value for name, value in os.environ.items() if name != "XLA_FLAGS"},
    )
    result = json.loads(path.read_text())
    gradient = result["bytes of the prompt's gradient"]
    assert gradient == 4 * 100 * SMALL.embed_dim

    # The sums of losses and weights, two numbers, go with it.
    reduced = {"all-reduce count": 1, "all-reduce bytes": gradient + 8}
    assert result["meshes"]["8x1"] == {"data": reduced}
    split = result["meshes"]["8x1+fsdp"]["data"]
    assert reduced.items() <= split.items()
    # Forward, and backward together with what is computed anew; and a few arrays besides.
    assert 2 * KERNELS <= split["all-gather count"] <= 2 * KERNELS + 24
