"""The macros and parameters that each command reads; imports neither gin nor JAX."""

from collections.abc import Mapping
from dataclasses import dataclass

COMMANDS = {
    "quickstart": "train a prompt on a small frozen model in about a minute",
    "train": "train a prompt against a frozen model",
    "pretrain": "train or adapt a whole model on plain text",
    "sweep": "train every run of a grid of settings; resumes",
    "results": "show a sweep's results as a table",
    "report": "write a web page about a run or a sweep",
    "plan": "estimate memory and time of training on hardware you don't have yet",
    "evaluate": "score a prompt on a task",
    "ensemble": "score several prompts of one model, separately and as an ensemble",
    "design": "score text prompts, zero- and few-shot, without training",
    "search": "pick a text prompt on the development set",
    "infer": "predict answers for the rows of a file with one or more prompts",
    "serve": "serve a folder of prompts over HTTP",
    "methods": "list what each method trains, saves and supports",
    "tasks": "list the tasks, with sizes where known",
    "show": "print examples of a task as the model sees them",
    "submit": "write a zip file for the SuperGLUE or GLUE leaderboard",
    "neighbors": "show the vocabulary pieces nearest to a prompt's positions",
    "compare": "compare prompts of different tasks and seeds by similarity",
    "launch": "write a job for SLURM, Cloud TPU, Kubernetes or SkyPilot",
    "convert": "convert a frozen model of any format to one file or to Hugging Face's format",
    "merge": "merge LoRA and its variants, IA3 or model tuning into the model's weights",
    "export": "export a prompt for PEFT or T5X, or as NumPy or safetensors",
    "publish": "share a run's prompt, with a model card, on the Hugging Face hub",
}

_MODEL = ("INITIAL_CHECKPOINT_PATH", "VOCABULARY_PATH")
_DEVICES = ("DATA_PARALLEL", "MODEL_PARALLEL", "FSDP")
_PROCESSES = ("COORDINATOR_ADDRESS", "NUM_PROCESSES", "PROCESS_ID")
_TASK = ("MIXTURE_OR_TASK_NAME", "TASK_FEATURE_LENGTHS", "BATCH_SIZE", "DATA_DIR")
_FILES = ("TRAIN_FILE", "VALIDATION_FILE", "TEST_FILE", "INPUT_TEMPLATE", "TARGET_TEMPLATE")
_METHOD = ("PROMPT_LENGTH", "CLASS_LABELS", "PROMPT_FILE")
_RUN = ("MODEL_DIR", "TRAIN_STEPS", "LEARNING_RATE", "SEED")
_TRAINING = (*_RUN, *_METHOD, *_TASK, *_FILES, *_MODEL)
_SCORING = ("PROMPT_FILE", *_TASK, *_FILES, *_MODEL, *_DEVICES)

_TRAIN_PARAMETERS = (
    "train.eval_every",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.patience",
    "train.accumulation_steps",
    "train.wandb_project",
    "predict.method",
    "frozen_model.compute_dtype",
)
_PREDICT_PARAMETERS = ("predict.method", "predict.max_length", "predict.beam_size")

_TRAIN_RTE = (
    "--gin_file=models/tinyworld_small.gin --gin_file=tasks/tinyworld_rte.gin \\\n"
    "      --gin_file=prompts/class_label.gin --gin_file=runs/train.gin"
)
_DESIGN_RTE = "--gin_file=models/tinyworld_small.gin --gin_file=tasks/tinyworld_rte.gin"


@dataclass(frozen=True)
class Settings:
    """Settings that a command's `--help` lists.

    Attributes:
      macros: names in `MACROS`, in display order.
      parameters: the most common ones, names in `MEANINGS`.
      example: arguments of a complete command.
    """

    macros: tuple[str, ...]
    parameters: tuple[str, ...]
    example: str


SETTINGS: Mapping[str, Settings] = {
    "train": Settings(
        (*_TRAINING, "POPULATION", "TUNE", *_DEVICES, *_PROCESSES),
        _TRAIN_PARAMETERS,
        f"{_TRAIN_RTE} \\\n      --gin.PROMPT_LENGTH=20 --gin.TRAIN_STEPS=100 "
        "--gin.train.eval_every=20 --gin.MODEL_DIR=runs/rte",
    ),
    "quickstart": Settings(
        (*_RUN, *_METHOD, *_TASK, *_MODEL),
        ("train.eval_every", "train.patience"),
        "--gin.PROMPT_LENGTH=5 --gin.MODEL_DIR=runs/short_prompt",
    ),
    "pretrain": Settings(
        ("CORPUS", "OBJECTIVE", "TASK_FEATURE_LENGTHS", "BATCH_SIZE", "DATA_DIR", *_RUN)
        + (*_MODEL, *_DEVICES),
        ("new_model.architecture", "train.eval_every", "train.checkpoint_every")
        + ("train.log_every", "train.wandb_project", "corpus.held_out_share"),
        "--gin.CORPUS=corpus.txt --gin.VOCABULARY_PATH=tinyworld --gin.TRAIN_STEPS=1000 \\\n"
        "      --gin.MODEL_DIR=runs/my_t5",
    ),
    "sweep": Settings(
        (*_RUN, *_METHOD, *_TASK, *_MODEL),
        ("sweep.places", *_TRAIN_PARAMETERS),
        "experiments/scale_curve/miniature.gin --folder runs/curve --plan",
    ),
    "report": Settings(_SCORING, (), "runs/rte"),
    "plan": Settings(
        (*_METHOD, *_TASK, *_MODEL[:1], *_DEVICES),
        ("train.accumulation_steps", "frozen_model.remat", "frozen_model.param_dtype")
        + ("data.batch_tokens",),
        "--gin_file=models/t5_1_1_xxl.gin --accelerator=v5e-16",
    ),
    "evaluate": Settings(_SCORING, ("predict.split", *_PREDICT_PARAMETERS), "runs/rte"),
    "ensemble": Settings(_SCORING, ("predict.split", "predict.method"), "runs/rte runs/rte_2"),
    "design": Settings(_SCORING[1:], _PREDICT_PARAMETERS, f"{_DESIGN_RTE} --shots 0 4"),
    "search": Settings(_SCORING[1:], _PREDICT_PARAMETERS, f"{_DESIGN_RTE} --shots 0 4"),
    "infer": Settings(
        ("PROMPT_FILE", *_TASK, *_MODEL, *_DEVICES),
        _PREDICT_PARAMETERS,
        "runs/rte --input new.jsonl",
    ),
    "serve": Settings(
        ("TASK_FEATURE_LENGTHS", "BATCH_SIZE", *_MODEL, *_DEVICES),
        _PREDICT_PARAMETERS,
        "prompts --gin_file=models/tinyworld_small.gin",
    ),
    "show": Settings(
        ("MIXTURE_OR_TASK_NAME", "TASK_FEATURE_LENGTHS", "DATA_DIR", *_FILES)
        + ("PROMPT_LENGTH", "VOCABULARY_PATH"),
        ("data.target_sentinel",),
        "tinyworld_rte -n 5",
    ),
    "submit": Settings(_SCORING, ("predict.method",), "superglue --runs RTE=runs/rte --partial"),
    "neighbors": Settings(("PROMPT_FILE", *_MODEL), (), "runs/rte"),
    "merge": Settings(_MODEL, (), "runs/lora --output models/lora"),
}
"""Settings by command; commands without an entry take no gin flags."""
