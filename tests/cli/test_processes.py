"""How a command is told that it is one of several processes."""

from prompt_tuning.cli import configurables, gin_config
from prompt_tuning.parallel.processes import ProcessOptions

BY_HAND = [
    ("COORDINATOR_ADDRESS", "10.0.0.1:8476"),
    ("NUM_PROCESSES", "4"),
    ("PROCESS_ID", "3"),
    ("INITIAL_CHECKPOINT_PATH", "none"),
    ("VOCABULARY_PATH", "none"),
    ("MIXTURE_OR_TASK_NAME", "superglue_rte"),
]


def test_given_by_macros_and_left_out_of_what_is_recorded(monkeypatch):
    gin_config.load(["runs/base.gin", "tasks/superglue_rte.gin"], BY_HAND)
    found = configurables.processes()
    assert found == ProcessOptions(coordinator="10.0.0.1:8476", count=4, index=3)
    assert gin_config.macro("PROCESS_ID") is None
    for text in (gin_config.operative_text(), gin_config.text()):
        assert "10.0.0.1" not in text
        assert "PROCESS_ID = None" in text
    # Another command in this process starts anew.
    for name in ("JAX_COORDINATOR_ADDRESS", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    gin_config.load(["runs/base.gin", "tasks/superglue_rte.gin"], BY_HAND[3:])
    assert configurables.processes() is None
