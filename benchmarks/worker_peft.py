"""Hugging Face PEFT's worker process in the benchmarks; see `contenders.py`.

It runs in PEFT's own environment, reads and writes the same lines as `worker_ours.py`, with an
additional "dtype", and imports nothing from this package. It works as PEFT's users do:

- "step": forward, backward and an AdamW update of the prompt, dropout off;
- "decode": `generate`, greedy, with a cache;
- "rank": one forward pass of every input with every label, as a loss over labels needs.
"""

import importlib.metadata
import json
import resource
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from peft import PromptTuningConfig, PromptTuningInit, TaskType, get_peft_model
from transformers import T5Config, T5ForConditionalGeneration
from transformers.utils import logging


def peak_bytes():
    """Returns this process's peak resident memory."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    except (OSError, StopIteration):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def make_model(config, prompt, dtype):
    """Returns a T5 with random weights and a soft prompt before its encoder."""
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=config["vocab_size"],
            d_model=config["embed_dim"],
            d_kv=config["head_dim"],
            d_ff=config["mlp_dim"],
            num_layers=config["num_encoder_layers"],
            num_decoder_layers=config["num_decoder_layers"],
            num_heads=config["num_heads"],
            feed_forward_proj="gated-gelu" if config["gated_mlp"] else "relu",
            tie_word_embeddings=config["tie_embeddings"],
            dropout_rate=0.0,
            decoder_start_token_id=0,
        )
    )
    if not config["tie_embeddings"]:
        # transformers 5 ties them for a model that is built from a config.
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model = model.to(getattr(torch, dtype))
    # A random model mustn't end its answers early.
    model.generation_config.eos_token_id = None
    return get_peft_model(
        model,
        PromptTuningConfig(
            task_type=TaskType.SEQ_2_SEQ_LM,
            num_virtual_tokens=prompt,
            num_transformer_submodules=1,
            prompt_tuning_init=PromptTuningInit.RANDOM,
        ),
    )


class Worker:
    """The model and the work that `setup` names."""

    def __init__(self, setup):
        torch.manual_seed(0)
        self.target, self.task = setup["target"], setup["task"]
        self.vocabulary = min(setup["config"]["vocab_size"], 32000)
        self.model = make_model(setup["config"], setup["prompt"], setup["dtype"])
        self.labels = setup.get("labels", 1)
        self.work = getattr(self, self.task)
        if self.task == "step":
            self.model.train()
            trained = [p for p in self.model.parameters() if p.requires_grad]
            self.optimizer = torch.optim.AdamW(trained, lr=0.3)
        else:
            self.model.eval()

    def tokens(self, lengths, padded, seed):
        numbers = np.random.default_rng(seed)
        rows = numbers.integers(2, self.vocabulary, (len(lengths), padded))
        visible = np.arange(padded) < np.array(lengths)[:, None]
        return torch.from_numpy(np.where(visible, rows, 0)), torch.from_numpy(visible.astype(int))

    def step(self, piece):
        inputs, mask = self.tokens(piece["lengths"], piece["padded"], 0)
        labels, _ = self.tokens([self.target] * len(inputs), self.target, 2)
        loss = self.model(input_ids=inputs, attention_mask=mask, labels=labels).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if not torch.isfinite(loss):
            raise SystemExit("The peer's loss isn't finite; its times mean nothing.")

    @torch.inference_mode()
    def decode(self, piece):
        inputs, mask = self.tokens(piece["lengths"], piece["padded"], 0)
        found = self.model.generate(
            input_ids=inputs,
            attention_mask=mask,
            max_new_tokens=self.target,
            do_sample=False,
            num_beams=1,
        )
        if found.shape[1] != self.target + 1:
            raise SystemExit(f"The peer decoded {found.shape[1] - 1} tokens, not {self.target}.")

    @torch.inference_mode()
    def rank(self, piece):
        inputs, mask = self.tokens(piece["lengths"], piece["padded"], 0)
        labels, _ = self.tokens([self.target] * self.labels, self.target, 1)
        logits = self.model(
            input_ids=inputs.repeat_interleave(self.labels, dim=0),
            attention_mask=mask.repeat_interleave(self.labels, dim=0),
            labels=labels.repeat(len(inputs), 1),
        ).logits
        scores = torch.log_softmax(logits.float(), dim=-1)
        wanted = labels.repeat(len(inputs), 1)[..., None]
        return torch.gather(scores, 2, wanted).sum(dim=(1, 2)).reshape(len(inputs), self.labels)


def main():
    logging.set_verbosity_error()
    warnings.simplefilter("ignore", FutureWarning)
    # Lines of JSON alone belong on standard output, whatever the libraries print there.
    answers, sys.stdout = sys.stdout, sys.stderr
    worker = Worker(json.loads(sys.stdin.readline()))
    versions = {
        name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft")
    }
    print(json.dumps({"versions": versions}), file=answers, flush=True)
    for line in sys.stdin:
        seconds = []
        for piece in json.loads(line)["pieces"]:
            start = time.perf_counter()
            worker.work(piece)
            seconds.append(time.perf_counter() - start)
        found = {"seconds": seconds, "peak_bytes": peak_bytes()}
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
