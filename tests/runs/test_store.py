"""All runs: listed with the broken ones, found by a few letters, pruned with care."""

from datetime import UTC, datetime, timedelta

import pytest

from workbench.runs import store
from workbench.runs.folder import Run
from workbench.runs.provenance import this_process
from workbench.runs.status import Status


@pytest.fixture
def root(tmp_path):
    """Five runs, one day apart, the newest first: ok, failed, running, ok, killed; a broken one and a stranger."""
    for days, state in enumerate(["ok", "failed", "running", "ok", "killed"]):
        run = Run.create(f"r{days}", root=tmp_path)
        run.amend(created=(datetime.now(UTC) - timedelta(days=days, minutes=1)).isoformat())
        Status(state=state, **this_process()).write(run.path)
    (tmp_path / "2026-01-01-broken-aaaaaa").mkdir()
    (tmp_path / "2026-01-01-broken-aaaaaa" / "run.json").write_text("{")
    (tmp_path / "notes").mkdir()
    (tmp_path / "file.txt").touch()
    return tmp_path


def names(runs):
    return [run.record["name"] for run in runs]


def test_listing_is_newest_first_and_shows_broken_folders(root):
    entries = store.entries(root)
    assert [entry.run.record["name"] for entry in entries if entry.run] == ["r0", "r1", "r2", "r3", "r4"]
    problems = {entry.path.name: entry.problem for entry in entries if entry.run is None}
    assert "not readable JSON" in problems["2026-01-01-broken-aaaaaa"]
    assert "no run.json" in problems["notes"]


def test_no_folder_is_no_runs(tmp_path):
    assert store.entries(tmp_path / "none") == []


def test_prune_keeps_what_runs_and_what_is_no_run(root):
    chosen = store.prunable(root, keep=0)
    assert names(chosen) == ["r0", "r1", "r3", "r4"]
    for run in chosen:
        store.remove(run)
    assert names(entry.run for entry in store.entries(root) if entry.run) == ["r2"]
    assert (root / "notes").is_dir()
    assert (root / "2026-01-01-broken-aaaaaa").is_dir()


def test_prune_conditions_must_all_hold(root):
    assert names(store.prunable(root, keep=2)) == ["r3", "r4"]
    assert names(store.prunable(root, older_than_days=3)) == ["r3", "r4"]
    assert names(store.prunable(root, states=["ok"], older_than_days=1)) == ["r3"]


@pytest.mark.parametrize("wrong", [{"keep": -1}, {"older_than_days": -0.5}, {"older_than_days": float("nan")}])
def test_prune_refuses_what_is_below_zero(root, wrong):
    with pytest.raises(ValueError, match="give 0 or more"):
        store.prunable(root, **wrong)


def test_prune_leaves_links_and_queued_runs_alone(root, tmp_path_factory):
    outside = Run.create("outside", root=tmp_path_factory.mktemp("other"))
    Status(state="ok").write(outside.path)
    (root / "2026-01-01-link-bbbbbb").symlink_to(outside.path)
    Run.create("waiting", root=root)
    assert not {"outside", "waiting"} & set(names(store.prunable(root, keep=0)))


def test_a_running_run_cannot_be_removed(root):
    with pytest.raises(ValueError, match="still running"):
        store.remove(store.find("r2", root))


def test_find_by_path_name_beginning_and_id(root):
    run = store.find("r0", root)
    for text in (run.path, run.name, run.name[:13], "r0", run.record["id"]):
        assert store.find(text, root).path == run.path


def test_find_says_what_is_near_or_unclear(root):
    with pytest.raises(ValueError, match="begins 5 runs"):
        store.find("r", root)
    newest = store.find("r0", root).name[:-6] + "zzzzzz"
    with pytest.raises(ValueError, match=r"No run '.*-r0-zzzzzz'.*; did you mean '.*-r0-"):
        store.find(newest, root)
    with pytest.raises(ValueError, match="there are no runs"):
        store.find("x", root / "none")
