"""Writes docs/accelerators.md and its figure from what benchmarks/accelerators.py compiled.

    python benchmarks/accelerators_page.py

The tests compare the page with its results.
"""

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from accelerators import (
    GROWTH,
    LONG_INPUTS,
    MEMBERS,
    MESHES,
    OTHERS,
    PARTS,
    POD,
    POPULATIONS,
    RESULTS,
    SIZES,
    Case,
    kinds,
)

from prompt_tuning.analysis.figures import COLORS, QUIET, new_axes, new_figure, save
from prompt_tuning.models.config import get_config
from prompt_tuning.models.parameters import parameter_shapes

DOCS = Path(__file__).parent.parent / "docs"
PAGE, FIGURE = DOCS / "accelerators.md", DOCS / "accelerators.png"
_ABSENT = "not compiled"

Results = Mapping[str, Mapping[str, Any]]
"""By the key of a case."""


@dataclasses.dataclass(frozen=True)
class Target:
    """The most that a number of a step may be.

    Attributes:
      what: of the step, in words.
      number: of `_Found`.
      most: in `unit`.
      before: the number before attention and memory were reworked, if it was taken.
    """

    what: str
    case: Case
    number: str
    most: float
    unit: str
    before: float | None = None


_SMALL, _BASE, _LARGE = (case for case in PARTS["targets"][:3])
_XXL, _XXL_RECOMPUTED = Case(**POD), Case(**POD, remat=True)
_H200 = Case(machine="H200")
_H200_XXL = Case(machine="H200", model="t5_1_1_xxl")

TARGETS = [
    Target("Small, four v5e", _SMALL, "cycles", 9, "M cycles", 32.2),
    Target("Base, four v5e", _BASE, "cycles", 40, "M cycles", 122.3),
    Target("Large, four v5e", _LARGE, "cycles", 140, "M cycles", 342.3),
    Target("XXL, v5e-16 as 4 x 4", _XXL, "cycles", 480, "M cycles", 716.2),
    Target("XXL, the same, layers recomputed", _XXL_RECOMPUTED, "cycles", 480, "M cycles", 716.2),
    Target("Small, four v5e: over products alone", _SMALL, "over_products", 2.2, "times"),
    Target("Large, four v5e: over products alone", _LARGE, "over_products", 1.8, "times"),
    Target("XXL, v5e-16: over products alone", _XXL, "over_products", 1.6, "times"),
    Target("Small, four v5e: temporaries", _SMALL, "temporaries", 0.6, "GB", 1.19),
    Target("Base, four v5e: temporaries", _BASE, "temporaries", 2.35, "GB", 4.67),
    Target("Large, four v5e: temporaries", _LARGE, "temporaries", 6.25, "GB", 12.51),
    Target("XXL, v5e-16: all memory", _XXL, "memory", 10, "GB", 23.1),
    Target("Small, one H200: temporaries", _H200, "temporaries", 2, "GB", 6.7),
    Target("XXL, one H200: all memory", _H200_XXL, "memory", 141, "GB"),
]


@dataclasses.dataclass(frozen=True)
class Found:
    """The numbers of a compiled program in the tables' units."""

    case: Case
    result: Mapping[str, Any]

    @property
    def compiled(self) -> bool:
        return "temporaries" in self.result

    @property
    def with_rooflines(self) -> "Found":
        """The same with Pallas kernels at their rooflines."""
        rooflines = self.result.get("seconds_of_rooflines", self.result["seconds"])
        return Found(self.case, {**self.result, "seconds": rooflines})

    @property
    def arguments(self) -> float:
        """GB."""
        return self.result["arguments"] / 1e9

    @property
    def temporaries(self) -> float:
        """GB."""
        return self.result["temporaries"] / 1e9

    @property
    def memory(self) -> float:
        """GB."""
        return self.arguments + self.temporaries + self.result["outputs"] / 1e9

    @property
    def milliseconds(self) -> float:
        return 1e3 * self.result["seconds"]

    @property
    def cycles(self) -> float:
        """Millions, those that a Pallas kernel's time comes to included."""
        return self.result["seconds"] * self.case.accelerator.clock / 1e6

    @property
    def products(self) -> float:
        """Milliseconds of the fewest products at the peak FLOP/s."""
        return 1e3 * self.result["least_products"] / self.case.accelerator.flops

    @property
    def over_products(self) -> float:
        return self.milliseconds / self.products

    @property
    def memory_bound(self) -> float:
        """Milliseconds of all reads and writes at the memory's bandwidth."""
        return 1e3 * self.result["moved"] / self.case.accelerator.memory_bandwidth

    @property
    def cell(self) -> str:
        """Memory and time, or why there is neither."""
        if not self.result:
            return _ABSENT
        if not self.compiled:
            return f"{reason(self.result)} ({self.commit})"
        memory = f"{self.arguments:.2f} + {self.temporaries:.2f} GB"
        return f"{memory}, {self.milliseconds:.1f} ms ({self.commit})"

    @property
    def commit(self) -> str:
        return self.result.get("commit", "")


def reason(result: Mapping[str, Any]) -> str:
    """Returns a compiler's refusal, short."""
    text = result.get("refused") or result["failed"]
    return text.removeprefix("The compiler refuses it: ").removeprefix(
        "The compiler refuses the program: "
    )


def found(case: Case, results: Results) -> Found:
    """Returns what a case's program was compiled to; no numbers if it wasn't."""
    return Found(case, results.get(case.key, {}))


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: int = 1) -> str:
    """Returns a table in Markdown, whose columns from `right` on are numbers."""
    rule = ["---" if column < right else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def targets(results: Results) -> str:
    """Returns the table of targets."""
    rows = []
    for target in TARGETS:
        each = found(target.case, results)
        before = "" if target.before is None else f"{target.before:g}"
        row = [target.what, f"{target.most:g} {target.unit}", before]
        if not each.compiled:
            rows.append([*row, each.cell, "" if not each.result else "missed", each.commit])
            continue
        number = getattr(each, target.number)
        least = getattr(each.with_rooflines, target.number)
        numbers = f"{number:.3g}" + (f" ({least:.3g})" if least != number else "")
        share = number / target.most
        verdict = "met" if share <= 1 else f"missed, {share:.2f} times the target"
        if least <= target.most < number:
            verdict += " (met)"
        rows.append([*row, numbers, verdict, each.commit])
    return table(("step", "at most", "before", "found", "", "commit"), rows)


def _mesh(case: Case) -> str:
    return f"{case.data} x {case.parallel}" + (" FSDP" if case.fsdp else "")


def sizes(results: Results) -> str:
    """Returns the table of training steps by size and accelerator."""
    rows = []
    for machine, meshes in MESHES.items():
        for size, fields in meshes.items():
            case = Case(machine=machine, model=f"t5_1_1_{size}", **fields)
            each = found(case, results)
            row = [machine, size_name(size), _mesh(case)]
            if not each.compiled:
                rows.append([*row, each.cell, "", "", "", each.commit])
                continue
            row += [f"{each.arguments:.2f}", f"{each.temporaries:.2f}"]
            row += [f"{each.milliseconds:.1f}", f"{each.over_products:.1f}"]
            rows.append([*row, each.commit])
    header = ("accelerator", "model", "mesh", "arguments, GB", "temporaries, GB", "ms")
    return table((*header, "over products", "commit"), rows, right=3)


def size_name(size: str) -> str:
    """Returns a size as papers write it."""
    return size.upper() if size.startswith("x") else size.capitalize()


def _words(case: Case) -> str:
    """Returns what is special about a program of the table of kinds."""
    fields = case.fields
    words = [] if case.kind == "step" else [_KINDS[case.kind]]
    if case.method != "soft prompt":
        words.append(case.method)
    if case.parts > 1:
        words.append(f"accumulation over {case.parts} microbatches")
    if case.dropout:
        words.append(f"dropout {case.dropout:g}")
    if case.quantization:
        words.append(f"{case.quantization} weights")
    if case.members:
        words.append(f"population of {case.members}")
    if case.remat:
        words.append("layers recomputed")
    if "batch" in fields:
        words.append(f"batch {case.batch}")
    if "dtype" in fields:
        words.append(case.dtype)
    if case.data * case.parallel > 1:
        words.append(_mesh(case))
    return ", ".join(words) or "training step"


_KINDS = {
    "greedy": "greedy decoding, 32 tokens",
    "beam": "beam search, 4 beams, 32 tokens",
    "sample": "sampling, 32 tokens",
    "rank": "ranking 4 labels",
    "pre-training": "pre-training, 114 target tokens",
}


def kinds_table(results: Results) -> str:
    """Returns the table of Small's programs."""
    machines = ("v5e", "H100")
    rows = [
        (_words(pair[0]), *(found(case, results).cell for case in pair))
        for pair in zip(*map(kinds, machines), strict=True)
    ]
    return table(("program", *machines), rows)


def others(results: Results) -> str:
    """Returns the table of the other programs."""
    rows = [
        (
            size_name(case.model.rpartition("_")[2]),
            case.machine,
            _words(case),
            found(case, results).cell,
        )
        for case in OTHERS
    ]
    return table(("model", "accelerator", "program", ""), rows, right=3)


def populations(results: Results) -> str:
    """Returns the table of K members in one program, per member against one."""
    groups: dict[tuple[str, int, str], list[Found]] = {}
    for case in POPULATIONS:
        key = (case.model, case.source, case.machine)
        groups.setdefault(key, []).append(found(case, results))
    rows = []
    for (model, source, machine), group in groups.items():
        row = [size_name(model.rpartition("_")[2]), str(source), machine]
        one = group[0]
        row.append(f"{one.milliseconds:.2f}" if one.compiled else one.cell)
        for each in group[1:]:
            if not (each.compiled and one.compiled):
                row.append(each.cell)
                continue
            per_member = each.milliseconds / each.case.members
            share = per_member / one.milliseconds
            row.append(f"{per_member:.2f} ({share:.2f})")
        rows.append(row)
    header = ("model", "input", "accelerator", "ms of one", *(f"of {k}" for k in MEMBERS[1:]))
    return table(header, rows, right=3)


def draw(results: Results, path: Path) -> None:
    """Draws the step's time on one v5e along each axis, with the roofline."""
    figure = new_figure(9, 7)
    panels = [new_axes(panel) for panel in figure.subfigures(2, 2).flat]
    names = {"source": "input, tokens", "prompt": "prompt, tokens", "batch": "batch, examples"}
    for axes, (name, label) in zip(panels, names.items(), strict=False):
        cases = [Case(machine="v5e", **{name: value}) for value in GROWTH[name]]
        _curve(axes, GROWTH[name], [found(case, results) for case in cases], label)
    cases = [*(Case(machine="v5e", model=f"t5_1_1_{size}") for size in SIZES[:4]), _XXL]
    parameters = [_parameters(case) / 1e6 for case in cases]
    compiled = [found(case, results) for case in cases]
    _curve(panels[3], parameters, compiled, "model, million parameters")
    panels[0].legend(frameon=False, fontsize=8)
    figure.suptitle("T5 1.1 on one TPU v5e: a step of 512 + 100 tokens, batch 32, bfloat16")
    save(figure, path)


def _parameters(case: Case) -> int:
    total = 0
    for shape in parameter_shapes(get_config(case.model)).values():
        size = 1
        for length in shape:
            size *= length
        total += size
    return total


def _curve(axes: Any, places: Sequence[float], cases: Sequence[Found], label: str) -> None:
    """Draws one panel; times of several devices are added."""
    there = [
        (place, each, each.case.data * each.case.parallel)
        for place, each in zip(places, cases, strict=True)
        if each.compiled
    ]
    x = [place for place, _, _ in there]
    lines = {
        "compiler's estimate": ([n * each.milliseconds for _, each, n in there], COLORS[0], "o-"),
        "products at the peak": ([n * each.products for _, each, n in there], COLORS[1], "--"),
        "reads and writes at the peak": (
            [n * each.memory_bound for _, each, n in there],
            COLORS[2],
            ":",
        ),
    }
    for name, (y, color, style) in lines.items():
        axes.plot(x, y, style, color=color, label=name, linewidth=1.8, markersize=4)
    for place, each in zip(places, cases, strict=True):
        if "refused" in each.result:
            axes.annotate(
                "doesn't\nfit",
                (place, 0),
                xycoords=("data", "axes fraction"),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                color=QUIET,
                fontsize=8,
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(places, [f"{place:,.0f}" for place in places], minor=False)
    axes.minorticks_off()
    axes.set_xlabel(label)
    axes.set_ylabel("ms of a device")


def page(results: Results) -> str:
    """Returns the page."""
    compilers = {each["compiler"] for each in results.values()}
    return _PAGE.format(
        compilers="; ".join(sorted(compilers)),
        targets=targets(results),
        sizes=sizes(results),
        kinds=kinds_table(results),
        others=others(results),
        populations=populations(results),
        conclusion=conclusion(results),
        long=long_inputs(results),
        growth=_GROWTH if drawable(results) else f"The steps of this figure are {_ABSENT}.",
    )


def drawable(results: Results) -> bool:
    """Whether each panel of the figure has a point."""
    return all(
        any(found(Case(machine="v5e", **{name: value}), results).compiled for value in values)
        for name, values in GROWTH.items()
    )


def long_inputs(results: Results) -> str:
    """Returns the table of Large's step on inputs of 4,096 tokens."""
    rows = [
        (str(case.batch), "yes" if case.remat else "no", found(case, results).cell)
        for case in LONG_INPUTS
    ]
    return table(("batch", "layers recomputed", "arguments + temporaries, time"), rows)


def conclusion(results: Results) -> str:
    """Returns what the table of populations says."""
    shares: dict[str, list[tuple[float, str]]] = {}
    for case in POPULATIONS:
        one = found(dataclasses.replace(case, members=1), results)
        each = found(case, results)
        if case.members > 1 and each.compiled and one.compiled:
            share = each.milliseconds / case.members / one.milliseconds
            what = f"{case.members} of {size_name(case.model.rpartition('_')[2])}, "
            what += f"{case.source} tokens"
            shares.setdefault(case.machine, []).append((share, what))
    lines = []
    for machine, known in shares.items():
        best, worst = min(known), max(known)
        lines.append(
            f"On {machine}, a member's step takes between {best[0]:.2f} ({best[1]}) and "
            f"{worst[0]:.2f} ({worst[1]}) of a single run's."
        )
    return " ".join(lines) or f"The populations are {_ABSENT} yet."


_GROWTH = """\
One v5e, one axis at a time; XXL is the sum over sixteen. Layers are in a loop.

![Time of a step by input, prompt, batch and model](accelerators.png)"""

_PAGE = """\
# Accelerators: what their compilers say

XLA's compilers for TPUs and GPUs compile for devices that aren't there
([planning.md](planning.md)). `python benchmarks/accelerators.py` compiles every kind of program
with them, prints the table of targets, and writes this page from [the
results](../benchmarks/results/accelerators.json). A commit is that of the program's code: numbers
of different commits aren't comparable.

- **Nothing here was measured on a device.**
- **Memory** is the compiler's: the arguments (weights, state, batch) and the temporary arrays of
  one device, in GB of 10^9 bytes.
- **Time** is an estimate. For TPUs it is the compiler's cycles over the clock. The attention kernel
  (`prompt_tuning/models/flash_attention.py`) has no cycles; its FLOPs count at the rate that the
  compiler's schedule of it reaches, an eighth to a half of the peak. For GPUs the compiler says no
  time at all, so every kernel counts at its roofline, the larger of its FLOPs at the peak rate and
  of its bytes at the memory's: the least it can take, not what it will take. The attention kernel's
  FLOPs are missing there, since a GPU's program doesn't state them.
- **Communication has no cycles** in the TPU compiler's estimate. Times of several devices leave it
  out.
- **Over products** is the time over that of the fewest matrix products of the step
  (`prompt_tuning/analysis/flops.py`) at the peak FLOP/s.

Unless said otherwise: T5 1.1, a soft prompt of 100, inputs of 512 tokens, targets of 8, batch 32,
bfloat16, one device, layers in a loop and not recomputed. Meshes are data x model parallelism.

## Targets

Layers of Small, Base and Large are unrolled, as by default on accelerators; "before" are the steps
as they were shipped before attention and memory were reworked (Small, Base and Large in float32,
Large and XXL with recomputed layers), and the temporaries those of bfloat16 without recomputation.
In parentheses: with the attention kernel at its roofline.

{targets}

## Programs

Training steps by size, on the mesh one would use:

{sizes}

All kinds of programs, Small; arguments + temporaries, time:

{kinds}

More:

{others}

## Populations

K prompts trained in one program ([population.md](population.md)), batch 8 each: milliseconds of a
member's step, and in parentheses its share of a single run's.

{populations}

{conclusion}

## Growth

{growth}

Large on one v5e with inputs of 4,096 tokens:

{long}

Compilers: {compilers}.
"""


def main() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(page(results), encoding="utf-8")
    if drawable(results):
        draw(results, FIGURE)
    print(targets(results), f"All programs are in {PAGE}.", sep="\n\n")


if __name__ == "__main__":
    main()
