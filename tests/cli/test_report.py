"""`prompt-tuning report`: the pages of runs, populations and sweeps, and what can be wrong."""

import html.parser
import json
import re
import shutil

import pytest

from prompt_tuning.cli.__main__ import main
from prompt_tuning.recipes.scripts import USER_ERROR, status_of
from prompt_tuning.sweeps.store import SweepStore

pytestmark = pytest.mark.usefixtures("compile_once")

HOSTILE = "<script>alert('x')</script><img src=http://elsewhere/a.png>\"&"
CONFIG = """include 'models/t5_1_1_small.gin'
include 'tasks/superglue_rte.gin'
include 'runs/base.gin'
"""
SUMMARY = {
    "task": "superglue_rte",
    "model": "tiny_random",
    "score": 0.75,
    "metrics": {"accuracy": 0.75},
    "best_step": 20,
    "steps": 40,
    "stopped_early": False,
    "trained_parameters": 48,
    "frozen_parameters": 4800,
    "examples_per_second": 80.25,
    "wall_seconds": 78.0,
}
VERSIONS = {
    "packages": {"jax": "0.10.99"},
    "python": "3.11.99",
    "devices": ["cpu"],
    "git_commit": "abcdef0123-dirty",
    "resumed_with": [],
}


def metrics(best=0.75):
    for step, score in zip((0, 20, 40), (0.25, best, 0.5), strict=True):
        yield {"step": step, "eval/accuracy": score, "eval/score": score, "seconds": 1.5 * step}
        yield {"step": step + 1, "loss": 1 / (step + 1), "gradient_norm": 0.5}


def write_run(folder, *, summary=SUMMARY, config=CONFIG, best=0.75):
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in metrics(best)))
    (folder / "config.gin").write_text(config)
    (folder / "versions.json").write_text(json.dumps(VERSIONS))
    settings = {"SEED": "0", "contents of the data": "da7a0000"}
    (folder / "settings.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def run_folder(tmp_path, tiny_prompt_file):
    folder = write_run(tmp_path / "run")
    shutil.copy(tiny_prompt_file, folder / "prompt_best.safetensors")
    return folder


def write_sweep(folder, text="small", models=("small",)):
    """Twelve runs of three lengths and four seeds, and a failed one."""
    store = SweepStore(folder)
    for length in (5, 20, 100):
        for seed in range(4):
            run = f"length_{length}-seed_{seed}"
            score = 0.5 + length / 1000 + seed / 100
            where = write_run(folder / "parts" / run, best=score)
            record = {
                "settings": {"PROMPT_LENGTH": length, "NOTE": text, "SEED": seed},
                "config": {"PROMPT_LENGTH": str(length), "SEED": str(seed), "NOTE": text},
                "folder": str(where.relative_to(folder)),
                "summary": {
                    **SUMMARY,
                    "model": models[seed % len(models)],
                    "score": score,
                    "metrics": {},
                },
                "versions": {"git_commit": "abcdef0123"},
            }
            record["summary"]["metrics"] = {"accuracy": score}
            store.finish(run, record)
    store.fail("length_1-seed_0", text)
    return folder


def report(*argv):
    assert main(["report", *map(str, argv)]) == 0


class Elements(html.parser.HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


LOADING = ("src", "srcset", "href", "xlink:href", "data", "poster", "action", "background")


def check_loads_nothing(text):
    found = Elements(text).found
    assert len(found) > 50
    for tag, attributes in found:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "img")
        assert not any(name.startswith("on") for name in attributes), "no handlers"
        for name in LOADING:
            value = attributes.get(name, "#")
            assert value.startswith("#"), f"{tag} {name}={value}"
        assert "url(" not in attributes.get("style", "")
    assert [tag for tag, _ in found].count("script") == 1
    style = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert len(style) == 1 and "url(" not in style[0] and "@import" not in style[0]


def test_a_run(run_folder, tiny_settings, capsys):
    report(run_folder, *tiny_settings, "-k3")
    path = run_folder / "report.html"
    assert capsys.readouterr().out.strip() == str(path)
    text = path.read_text()
    check_loads_nothing(text)
    assert "<h1>superglue_rte on tiny_random</h1>" in text
    for told in ("0.750", "of 40; trained to its last step", "1 % of 4,800 frozen", "1 min 18 s"):
        assert told in text
    assert "0.750 at step 20" in text and text.count("<svg") == 3
    assert re.search(r"<td>accuracy</td><td[^>]*>0.250</td><td[^>]*>0.750</td>", text)
    assert text.count('class="piece"') == 3 * 3, "positions, neighbors"
    assert "Class labels among the neighbors" in text
    assert "include &#39;models/t5_1_1_small.gin&#39;" in text
    for told in ("0.10.99", "abcdef0123-dirty", "da7a0000", "SHA-256 of prompt_best.safetensors"):
        assert told in text


def test_an_unfinished_run(run_folder):
    (run_folder / "summary.json").unlink()
    settings = {"MIXTURE_OR_TASK_NAME": "'rte'", "INITIAL_CHECKPOINT_PATH": "'tiny'"}
    (run_folder / "settings.json").write_text(json.dumps(settings))
    report(run_folder, "--no_neighbors")
    text = (run_folder / "report.html").read_text()
    assert "<h1>rte on tiny</h1>" in text and "0.750 at step 20" in text
    assert "not finished: still training, or interrupted" in text


def test_the_answers_of_a_run(run_folder):
    predictions = run_folder / "predictions"
    predictions.mkdir()
    rows = [
        {"task": "rte", "inputs": f"text {i}", "targets": target, "prediction": answer}
        for i, (target, answer) in enumerate([("a", "a"), ("a", "b"), ("b", "b"), ("b", "<c>")])
    ]
    (predictions / "step_00000020.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    withheld = {"task": "rte", "targets": "<unk>", "prediction": "a"}
    tested = [rows[0], rows[2], withheld]
    (predictions / "test.jsonl").write_text("".join(json.dumps(r) + "\n" for r in tested))
    report(run_folder, "--no_neighbors")
    text = (run_folder / "report.html").read_text()
    check_loads_nothing(text)
    assert "2 of 4 answers are the target, 0.5000" in text
    assert "rte, test" in text and "2 of 2 answers are the target, 1.0000" in text
    assert "<td>text 1</td><td>a</td><td>b</td>" in text
    assert "<td>text 3</td><td>b</td><td>&lt;c&gt;</td>" in text
    assert "<td>text 0</td>" not in text


def test_nothing_from_a_runs_files_becomes_markup(run_folder):
    summary = {**SUMMARY, "task": HOSTILE, "ended": HOSTILE, "metrics": {HOSTILE: 0.5}}
    (run_folder / "summary.json").write_text(json.dumps(summary))
    for name in ("settings.json", "versions.json"):
        told = {"contents of x": HOSTILE, HOSTILE: HOSTILE, "packages": {HOSTILE: HOSTILE}}
        (run_folder / name).write_text(json.dumps(told))
    (run_folder / "config.gin").write_text(HOSTILE)
    row = {"step": 0, f"eval/{HOSTILE}": 0.5, "eval/score": 0.25}
    (run_folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    report(run_folder)
    text = (run_folder / "report.html").read_text()
    check_loads_nothing(text)
    assert "<script>alert" not in text and text.count("&lt;script&gt;alert") > 8


def test_neighbours_that_cannot_be_shown_are_one_line(run_folder, tiny_settings):
    path = run_folder / "report.html"
    report(run_folder, *tiny_settings, "--gin.VOCABULARY_PATH=/nowhere/vocabulary")
    (line,) = re.findall(
        r"The neighbors of this prompt can&#39;t be shown: ([^<]*)<", path.read_text()
    )
    assert "/nowhere/vocabulary" in line and "\n" not in line
    report(run_folder, "--no_neighbors")
    assert "Omitted because of --no_neighbors." in path.read_text()
    (run_folder / "prompt_best.safetensors").unlink()
    report(run_folder)
    assert "This run didn&#39;t train a prompt." in path.read_text()


def test_a_population(tmp_path):
    names = [f"seed_{i}" for i in range(3)]
    told = [
        {"name": name, "settings": {"SEED": str(i)}, "score": 0.5 + i / 10, "ended": "dropped"}
        for i, name in enumerate(names)
    ]
    folder = write_run(tmp_path / "many", summary={**SUMMARY, "best": "seed_2", "members": told})
    (folder / "metrics.jsonl").unlink()
    for i, name in enumerate(names):
        write_run(folder / "members" / name, best=0.5 + i / 10)
    report(folder, "--no_neighbors")
    text = (folder / "report.html").read_text()
    assert "population of 3" in text and "★ seed_2" in text
    assert text.count('class="spark s0"') == 3 and text.count("dropped") == 3
    assert text.count('<g class="curve faint">') == 3
    assert "0.700 at step 20" in text, "the best member's curve"


def test_a_sweep(tmp_path):
    folder = write_sweep(tmp_path / "lengths")
    output = tmp_path / "page.html"
    report(folder, "--output", output)
    text = output.read_text()
    check_loads_nothing(text)
    assert "<h1>lengths</h1>" in text and "best mean score" in text
    for mean in ("0.520", "0.535", "0.615"):
        assert f'{mean}<span class="deviation"> ± 0.013 (4)</span>' in text
    assert text.count('class="spark s0"') == 12 == text.count('<span class="run">')
    assert "length_1-seed_0" in text and "0.10.99" in text
    assert not (folder / "report.html").exists()


def test_nothing_from_a_sweeps_files_becomes_markup(tmp_path):
    folder = write_sweep(tmp_path / "lengths", HOSTILE, (f"{HOSTILE}1", f"{HOSTILE}2"))
    report(folder)
    text = (folder / "report.html").read_text()
    check_loads_nothing(text)
    assert "<script>alert" not in text and text.count("&lt;script&gt;alert") > 12


def fails(capsys, *argv):
    capsys.readouterr()
    assert status_of(main, ["report", *map(str, argv)]) == USER_ERROR
    printed = capsys.readouterr()
    assert printed.out == "" and "Traceback" not in printed.err
    (line,) = printed.err.strip().splitlines()
    return line


def test_what_is_no_run_or_sweep(tmp_path, capsys):
    assert "doesn't exist" in fails(capsys, tmp_path / "nowhere")
    assert "neither a run folder" in fails(capsys, tmp_path)
    SweepStore(tmp_path / "sweep")
    assert "no finished run" in fails(capsys, tmp_path / "sweep")
    begun = write_run(tmp_path / "begun")
    (begun / "summary.json").unlink()
    (begun / "metrics.jsonl").write_text("")
    assert "has not been evaluated yet" in fails(capsys, begun)
    assert not list(tmp_path.rglob("*.html"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("summary.json", "{"),
        ("versions.json", "\x00"),
        ("metrics.jsonl", "{}\n"),
        ("metrics.jsonl", "loss\n"),
        ("prompt_best.safetensors", "x"),
    ],
)
def test_a_damaged_file_is_named(run_folder, capsys, name, text):
    (run_folder / name).write_text(text)
    assert name in fails(capsys, run_folder, "--no_neighbors")
    assert not (run_folder / "report.html").exists()


def test_only_a_report_is_written_over(run_folder, capsys):
    report(run_folder, "--no_neighbors")
    report(run_folder, "--no_neighbors")
    line = fails(capsys, run_folder, "--no_neighbors", "--output", run_folder / "config.gin")
    assert "is not a report; give another --output" in line
    assert (run_folder / "config.gin").read_text() == CONFIG
    assert "it is not a file" in fails(capsys, run_folder, "--output", run_folder)
    assert "Can't write" in fails(
        capsys, run_folder, "--no_neighbors", "--output", run_folder / "no" / "page.html"
    )


def test_pages_in_a_real_browser(run_folder, tmp_path, rendered):
    report(run_folder, "--no_neighbors")
    dom, console = rendered(run_folder / "report.html")
    assert 'data-script="ran"' in dom and console == ""
    assert dom.count("<svg") == 3 and "0.750 at step 20" in dom

    folder = write_sweep(tmp_path / "lengths")
    report(folder)
    dom, console = rendered(folder / "report.html")
    assert 'data-script="ran"' in dom and console == ""
    assert "12 of 12" in dom, "the script counts the rows that are shown"

    # The page forbids every other script, so a copy without that is clicked on and typed into.
    click = """<script>
      document.querySelector("table.sortable th:nth-child(4) button").click();
      document.querySelector("table.sortable th:nth-child(4) button").click();
      const input = document.querySelector(".filter input");
      input.value = "length_20-";
      input.dispatchEvent(new Event("input"));
    </script></body>"""
    text = (folder / "report.html").read_text()
    clicked = tmp_path / "clicked.html"
    clicked.write_text(text.replace("</body>", click))
    _, console = rendered(clicked)
    assert "Content Security Policy" in console, "what the page doesn't know doesn't run"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    clicked.write_text(text.replace("</body>", click))
    dom, _ = rendered(clicked)
    assert "4 of 12" in dom
    rows = re.findall(r"<tr( hidden=\"\")?>(.*?)</tr>", dom.partition('class="sortable"')[2])
    runs = [found[1] for hidden, row in rows if (found := re.search(r'"run">([^<]*)', row))]
    assert len(runs) == 12 and len([1 for hidden, row in rows if hidden]) == 8
    scored = [
        float(re.findall(r'data-key="(0\.[^"]*)"', row)[0]) for _, row in rows if '"run">' in row
    ]
    assert scored == sorted(scored, reverse=True)
