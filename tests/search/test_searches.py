"""A search from its first trial to the winner's fresh seeds, and what it says when it cannot go on."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.search import toy
from tests.services.disk import fill, forbid_writing, small_disk
from workbench.search.objectives import parse
from workbench.search.searches import Search, settings_for
from workbench.search.settings import Settings, same_search

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "workbench", "search", "tests.search.toy", "--name", "toy", "--seeds", "2"]


def search(root: Path, *words: str, **surroundings: str) -> subprocess.Popen:
    command = [*COMMAND, "--root", str(root), *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | surroundings
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, cwd=root, stdout=pipe, stderr=pipe, text=True)


def said(process: subprocess.Popen, code: int = 0) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, out + err
    return out + err


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("done")
    text = said(search(root, "--trials", "6", "--workers", "2", "--top", "2"))
    assert "6 of 6 trials" in text
    assert "the best again with fresh seeds: 2 of 2" in text
    return root / "toy"


def test_the_winner_is_run_again_with_fresh_seeds(done):
    best = json.loads((done / "best.json").read_text())
    assert toy.Params.model_validate(best["params"])
    assert set(best["seeds"]) == {"1001", "1002"}
    assert best["interval"][0] <= best["values"][0] <= best["interval"][1]
    assert best["values"] == [pytest.approx(sum(best["seeds"].values()) / 2)]
    assert "over the fresh seeds 1001, 1002 among the 2 best of" in best["chosen"]
    assert "with the seeds of the search it was" in best["chosen"]
    assert [(done / "runs" / name / "run.json").is_file() for name in best["runs"]] == [True, True]


def test_the_folder_says_everything_without_optuna(done):
    records = [json.loads(line) for line in (done / "trials.jsonl").open()]
    facts = json.loads((done / "study.json").read_text())
    assert [one["number"] for one in records] == list(range(6))
    assert {one["state"] for one in records} <= {"complete", "pruned"}
    complete = next(one for one in records if one["state"] == "complete")
    assert set(complete["seeds"]) == {"0", "1"}
    assert complete["values"] == [pytest.approx(sum(complete["seeds"].values()) / 2)]
    assert complete["spread"] > 0
    assert complete["intermediate"]["10"]
    assert complete["user_attrs"]["sampler_seed"] >= 0
    assert facts["sampler"]["settings"]["n_startup_trials"] == 10
    assert (facts["trials"], facts["storage"], facts["space"]["width"]["when"]) == (6, "journal.log", {"kind": "deep"})
    rows = list(csv.DictReader((done / "summary.csv").open()))
    assert [row["state"] for row in rows] == [one["state"] for one in records]
    assert json.loads((done / "run_meta.json").read_text())["state"] == "finished"


def test_the_same_command_does_nothing_again_and_more_trials_go_on(done):
    before = (done / "trials.jsonl").read_text().splitlines()
    assert "6 of 6 trials" in said(search(done.parent, "--trials", "6", "--top", "2"))
    assert (done / "trials.jsonl").read_text().splitlines() == before
    assert "7 of 7 trials" in said(search(done.parent, "--trials", "7", "--top", "2"))
    assert (done / "trials.jsonl").read_text().splitlines()[:6] == before


def test_other_settings_under_the_same_name_are_refused_with_the_differences(done):
    text = said(search(done.parent, "--objective", "costs.line.parameters", "--pruner", "none", "--top", "2"), 2)
    assert "begun with other settings" in text
    assert "objectives is" in text
    assert "pruner.name is median there and none here" in text


def test_two_processes_do_not_run_one_search(tmp_path):
    first = search(tmp_path, "--trials", "3", "-p", "pause", "0.05")
    wait_for(tmp_path / "toy" / "trials.jsonl", first)
    assert "is running already; join it with `workbench search worker" in said(
        search(tmp_path, "--trials", "3", "-p", "pause", "0.05"), 2
    )
    first.send_signal(signal.SIGINT)
    said(first, 130)


def test_ctrl_c_stops_the_workers_and_the_same_command_goes_on(tmp_path):
    words = ("--trials", "3", "--workers", "2", "-p", "pause", "0.02", "--pruner", "none", "--top", "1")
    first = search(tmp_path, *words)
    wait_for(tmp_path / "toy" / "trials.jsonl", first)
    first.send_signal(signal.SIGINT)
    assert "Stopped; the same command goes on" in said(first, 130)
    alive = subprocess.run(["pgrep", "-f", str(tmp_path / "toy")], capture_output=True, text=True, check=False)
    assert alive.stdout == ""
    assert "3 of 3 trials" in said(search(tmp_path, *words))
    records = [json.loads(line) for line in (tmp_path / "toy" / "trials.jsonl").open()]
    assert len([one for one in records if one["state"] == "complete"]) == 3


def test_a_time_limit_leaves_the_rest_waiting_and_judges_the_best(tmp_path):
    words = ("--trials", "40", "--timeout", "0.1", "--top", "1", "--pruner", "none", "--space", "lr")
    text = said(search(tmp_path, *words, "-p", "pause", "0.01"))
    records = [json.loads(line) for line in (tmp_path / "toy" / "trials.jsonl").open()]
    assert {one["state"] for one in records} == {"complete", "waiting"}
    assert "over the fresh seeds" in text


def test_a_grid_ends_with_its_last_point(tmp_path):
    words = ("--space", "kind", "--space", "width=2|3", "--sampler", "grid", "--pruner", "none")
    assert "4 of" in said(search(tmp_path, *words))
    records = [json.loads(line) for line in (tmp_path / "toy" / "trials.jsonl").open()]
    assert len({json.dumps(one["params"], sort_keys=True) for one in records}) == 4


def test_an_experiment_that_always_fails_says_why(tmp_path):
    text = said(search(tmp_path, "--trials", "2", "-p", "fail", "no luck", "--space", "lr"), 2)
    assert "no trial was complete, trial 0 because of RuntimeError: no luck" in text


def test_a_disk_that_fills_up_ends_the_search_and_once_there_is_room_it_goes_on(tmp_path):
    words = ("--trials", "8", "--space", "lr", "--pruner", "none", "--lease", "2", "--top", "1", "-p", "pause", "0.02")
    with small_disk(tmp_path / "disk"):
        first = search(tmp_path / "disk", *words)
        wait_for(tmp_path / "disk" / "toy" / "trials.jsonl", first)
        filler = fill(tmp_path / "disk")
        assert "No space left on device" in said(first, 2)
        filler.unlink()
        assert "8 of 8 trials" in said(search(tmp_path / "disk", *words))
        records = [json.loads(line) for line in (tmp_path / "disk" / "toy" / "trials.jsonl").open()]
    assert len([one for one in records if one["state"] == "complete"]) == 8


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with small_disk(tmp_path / "disk"):
        forbid_writing(tmp_path / "disk")
        text = said(search(tmp_path / "disk"), 2)
    assert "Read-only file system" in text
    assert "disk/toy" in text


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"base": {"lr": 0.1}}, "lr: set and searched"),
        ({"base": {"lrr": 0.1}}, "did you mean 'lr'"),
        ({"seeds": ()}, "at least one"),
        ({"seeds": (0, 0)}, "each once"),
        ({"objectives": (parse("costs.line.parameters"),)}, "looks at validation losses"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        settings_for(toy, name="x", **changes)


def test_settings_survive_json():
    settings = settings_for(toy, name="x")
    same_search(Settings.of(json.loads(json.dumps(settings.plain()))), settings)


def test_a_folder_that_is_no_study_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"is no study: it has no study\.json"):
        Search(None, tmp_path)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
