"""A journal with damaged lines goes on; passwords stay where they are."""

import json
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.search import toy
from workbench.search.searches import Search, settings_for
from workbench.search.storage import JOURNAL, open_storage, redacted, without_secrets
from workbench.search.trials import Trials

RUBBISH = b"\x00\x00\x00 no line of a journal\n"


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return Search(settings_for(toy, name="study", space=("lr",)), tmp_path / "study")


def written(search: Search) -> tuple[Trials, Path]:
    """A study of four trials: 1 is complete, 2 runs, the others wait."""
    study = search.open()
    study.add(4)
    for number in range(3):
        trial = study.take()
        trial.suggest_float("lr", 1e-4, 1.0, log=True)
        if number == 1:
            study.study().tell(trial, 0.5)
    study.give_back(study.take(), "enough")
    return study, search.folder / JOURNAL


def damaged(path: Path, which: slice, by: bytes = RUBBISH) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[which] = [by] * len(lines[which])
    path.write_bytes(b"".join(lines))


def again(search: Search) -> tuple[Search, list]:
    other = Search(None, search.folder)
    return other, other.open().storage.get_all_trials(0)


def lines_of(path: Path, code: int) -> list[int]:
    return [place for place, line in enumerate(path.open()) if json.loads(line)["op_code"] == code]


@pytest.mark.parametrize("which", range(4))
def test_a_damaged_line_that_began_a_trial_moves_no_other_trial(search, which):
    _, path = written(search)
    before = search.records()
    place = lines_of(path, 4)[which]
    damaged(path, slice(place, place + 1))
    other, trials = again(search)
    assert len(trials) == 5
    assert [one["values"] for one in other.records()] == [one["values"] for one in before]
    assert [one["params"] for one in other.records()] == [one["params"] for one in before]


def test_a_damaged_end_of_a_trial_leaves_it_to_be_done_again(search):
    _, path = written(search)
    place = next(p for p, line in enumerate(path.open()) if '"values":[0.5]' in line)
    damaged(path, slice(place, place + 1))
    _, trials = again(search)
    assert trials[1].state == TrialState.RUNNING
    assert len(trials) == 5


def test_a_study_whose_first_lines_are_damaged_is_read_back(search):
    _, path = written(search)
    damaged(path, slice(0, 3))
    other, trials = again(search)
    assert len(trials) == 5
    assert other.records()[1]["values"] == [0.5]


def test_many_damaged_lines_in_the_middle(search):
    _, path = written(search)
    places = lines_of(path, 4)
    damaged(path, slice(places[1], places[3] + 1))
    _, trials = again(search)
    assert [one.state for one in trials].count(TrialState.COMPLETE) == 1
    assert trials[1].value == 0.5


def test_half_a_line_at_the_end_is_ended_by_the_next_writer(search):
    _, path = written(search)
    with path.open("ab") as file:
        file.write(b'{"op_code":6,"worker_id":"x","trial_id":3,"sta')
    other, trials = again(search)
    other.open().add(1)
    assert len(Search(None, search.folder).open().all()) == len(trials)
    assert path.read_bytes().endswith(b"}\n")


def test_damaged_lines_are_kept_apart_and_named(search):
    _, path = written(search)
    place = lines_of(path, 4)[2]
    damaged(path, slice(place, place + 1))
    other = Search(None, search.folder)
    other.open()
    assert other.damage() == [f"line {place + 1} of journal.log is damaged and was left out"]
    assert (search.folder / "journal.damaged").read_bytes() == b"line %d: " % (place + 1) + RUBBISH


@pytest.mark.parametrize(
    ("url", "says"), [("sqlite:///x.db", "sqlite is not for many workers"), ("://", "the storage is no URL")]
)
def test_other_databases_are_refused(url, says):
    with pytest.raises(ValueError, match=says):
        open_storage(url)


@pytest.mark.parametrize(
    "url", ["postgresql://me:se%40cret@host/db", "postgresql://me@host/db?password=se%40cret&sslpassword=se@cret"]
)
def test_a_password_is_taken_out_of_urls_and_texts(url):
    assert "cret" not in redacted(url)
    assert redacted(url).startswith("postgresql://me")
    assert "cret" not in without_secrets(f"cannot reach {url}: wrong 'se@cret'", url)
