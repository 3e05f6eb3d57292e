"""Results of a population, in its folder next to its members' run folders.

members/NAME/     the run folder of a member, as of a run by itself
prompt_best.*     the best prompt of all members
config.gin        the best member's configuration, so that `evaluate FOLDER` scores it
summary.json      its summary, and a table of all members
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.checkpoints.adapters.adapter_files import BEST_ADAPTER, BEST_PROMPT
from prompt_tuning.files import atomic_write
from prompt_tuning.training.halving import ranked
from prompt_tuning.training.run import TrainResult
from prompt_tuning.training.run_folder import FIX, MEMBERS, RunFolder


def best_first(results: Sequence[TrainResult]) -> list[TrainResult]:
    """Returns results sorted by best development score; ties keep the order given."""
    by_name = {result.name: result for result in results}
    standings = {
        name: (math.nan if result.best.score is None else result.best.score, result.best.step or 0)
        for name, result in by_name.items()
    }
    return [by_name[name] for name in ranked(standings)]


def write_results(
    folder: RunFolder,
    results: Sequence[TrainResult],
    settings: Mapping[str, Mapping[str, Any]],
    config_of_best: str,
) -> None:
    """Copies the best member's prompt, and writes its configuration and the summary of all.

    Args:
      folder: the population's folder.
      results: the results of all members.
      settings: per-member settings, by member name.
      config_of_best: the configuration of the best member.
    """
    if not folder.is_written_here:
        return
    best = best_first(results)[0]
    of_best = RunFolder(folder.path / MEMBERS / best.name)
    for stem in (BEST_PROMPT, BEST_ADAPTER):
        for found in sorted(of_best.path.glob(f"{stem}.*")):
            with atomic_write(folder.path / found.name, fix=FIX) as file:
                file.write(found.read_bytes())
    folder.write_text("config.gin", config_of_best)
    table: list[Mapping[str, Any]] = [
        {
            "name": result.name,
            "settings": {key: str(value) for key, value in settings[result.name].items()},
            "score": result.best.score,
            "metrics": result.best.metrics,
            "best_step": result.best.step,
            "steps": result.step,
            "ended": result.ended,
        }
        for result in results
    ]
    summary = json.loads(of_best.summary.read_text())
    folder.write_json("summary.json", {"best": best.name, **summary, "members": table})
