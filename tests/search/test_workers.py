"""Four workers on one study, on a journal and on PostgreSQL: killed in the middle of trials, they lose none."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.search import toy
from tests.services.postgres import Postgres, postgres
from workbench.search.searches import Search, settings_for
from workbench.search.trials import Trials
from workbench.search.worker import in_child

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture(params=["journal", "postgresql"])
def url(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "journal" else request.getfixturevalue("server").url


def a_study(folder: Path, url: str | None, trials: int, **changes: object) -> tuple[Search, Trials]:
    settings = {
        "base": {"pause": 0.02},
        "space": ("lr",),
        "seeds": (0, 1),
        "lease_seconds": 3.0,
        "pruner": ("none", {}),
        **changes,
    }
    search = Search(settings_for(toy, name=folder.name, trials=trials, **settings), folder, url)
    study = search.open()
    study.add(trials)
    return search, study


def start(search: Search, number: int, **surroundings: str) -> subprocess.Popen:
    command, environment = in_child(search.folder, number, search.url)
    log = open(search.folder / f"worker-{number}.log", "ab")  # noqa: SIM115 - the process holds it
    environment = environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | surroundings
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)


def finished(search: Search) -> dict[str, list[dict]]:
    records = search.records()
    return {state: [one for one in records if one["state"] == state] for state in {one["state"] for one in records}}


def logs(search: Search) -> str:
    return "".join(path.read_text() for path in search.folder.glob("worker-*.log"))


def test_four_workers_are_killed_mid_trial_and_no_trial_is_lost(tmp_path, url):
    search, _ = a_study(tmp_path / f"killed-{'db' if url else 'file'}", url, 12)
    rng, workers, kills = random.Random(0), {}, 0
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline:
        for number in range(4):
            if number not in workers or (workers[number].poll() is not None and kills < 6):
                workers[number] = start(search, number)
        states = Counter(one["state"] for one in search.records())
        if states["complete"] == 12:
            break
        if kills < 6 and states["running"]:
            time.sleep(rng.uniform(0.3, 1.0))
            victim = workers[rng.randrange(4)]
            if victim.poll() is None:
                victim.send_signal(signal.SIGKILL)
                kills += 1
        time.sleep(0.2)
    for worker in workers.values():
        assert worker.wait(60) in (0, -signal.SIGKILL), logs(search)
    found = finished(search)
    assert kills == 6
    assert len(found["complete"]) == 12
    assert set(found) <= {"complete", "failed"}
    assert all(one["user_attrs"].get("lost") for one in found.get("failed", []))
    assert found.get("failed"), "a worker was killed in the middle of a trial"
    originals = {root_of(one, search.records()) for one in found["complete"]}
    assert len(originals) == 12, "each trial was completed once"


def root_of(one: dict, records: list[dict]) -> int:
    by_number = {record["number"]: record for record in records}
    while one["retry_of"] is not None:
        one = by_number[one["retry_of"]]
    return one["number"]


def test_a_retry_goes_on_from_the_checkpoint(tmp_path, url):
    search, _ = a_study(tmp_path / f"resumed-{'db' if url else 'file'}", url, 1, seeds=(0,), base={"pause": 0.1})
    worker = start(search, 0)
    run = search.folder / "runs" / "trial-00000-seed-0"
    wait_until(lambda: list(run.glob("checkpoints/line/*")), 60)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    last = start(search, 1)
    assert last.wait(90) == 0, logs(search)
    first, second = search.records()
    assert (first["state"], second["state"], second["retry_of"], second["attempt"]) == ("failed", "complete", 0, 2)
    again = json.loads((search.folder / "runs" / "trial-00001-seed-0" / "run.json").read_text())
    assert again["resumed_from"] == "trial-00000-seed-0"
    steps = [json.loads(line)["step"] for line in (Path(run.parent) / "trial-00001-seed-0/metrics.jsonl").open()]
    assert steps[0] > 10, "it did not begin again"
    assert first["params"] == second["params"]


def test_sigterm_hands_a_trial_back_at_once(tmp_path, url):
    search, study = a_study(tmp_path / f"handed-{'db' if url else 'file'}", url, 1, base={"pause": 0.1})
    worker = start(search, 0)
    wait_until(lambda: list((search.folder / "runs").glob("*/checkpoints/line/*")), 60)
    worker.terminate()
    assert worker.wait(30) == 130
    assert [one["state"] for one in search.records()] == ["failed", "waiting"]
    assert search.records()[1]["attempt"] == 1
    assert len(study.all()) == 1


def test_a_worker_that_only_slept_gives_way_to_the_one_that_took_its_trial(tmp_path, url):
    search, _ = a_study(tmp_path / f"slept-{'db' if url else 'file'}", url, 1, seeds=(0,), base={"pause": 0.1})
    sleeper = start(search, 0)
    wait_until(lambda: list((search.folder / "runs").glob("*/checkpoints/line/*")), 60)
    sleeper.send_signal(signal.SIGSTOP)
    other = start(search, 1)
    assert other.wait(90) == 0, logs(search)
    sleeper.send_signal(signal.SIGCONT)
    assert sleeper.wait(60) == 0, logs(search)
    assert Counter(one["state"] for one in search.records()) == {"failed": 1, "complete": 1}


def test_workers_whose_clocks_differ_by_days_take_nothing_from_each_other(tmp_path, url):
    search, _ = a_study(tmp_path / f"clocks-{'db' if url else 'file'}", url, 6)
    late = tmp_path / "late"
    late.mkdir()
    (late / "sitecustomize.py").write_text("import time\nreal = time.time\ntime.time = lambda: real() - 3 * 86_400\n")
    workers = [start(search, 0), start(search, 1, PYTHONPATH=f"{late}{os.pathsep}{ROOT}")]
    assert [worker.wait(90) for worker in workers] == [0, 0], logs(search)
    assert Counter(one["state"] for one in search.records()) == {"complete": 6}
    assert len({one["worker"] for one in search.records()}) == 2


def test_a_database_that_is_gone_for_a_while_is_waited_for(tmp_path, server):
    search, _ = a_study(tmp_path / "outage", server.url, 6)
    workers = [start(search, number) for number in range(2)]
    wait_until(lambda: any(one["state"] == "complete" for one in search.records()), 60)
    server.stop()
    time.sleep(6)  # twice as long as a silent worker keeps its trial
    server.start()
    assert [worker.wait(90) for worker in workers] == [0, 0], logs(search)
    assert Counter(one["state"] for one in search.records()) == {"complete": 6}
    assert "waiting for it" in logs(search)


def test_a_worker_joins_from_another_machine_by_the_url_alone(tmp_path, server):
    search, _ = a_study(tmp_path / "here" / "joined", server.url, 2, base={})
    there = tmp_path / "there"
    command, environment = in_child(there / "joined", 7, server.url)
    there.mkdir()
    subprocess.run(command, env=environment | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    assert Counter(one["state"] for one in search.records()) == {"complete": 2}
    assert len((there / "joined" / "trials.jsonl").read_text().splitlines()) == 2
    facts = [json.loads((place / "study.json").read_text()) for place in (search.folder, there / "joined")]
    assert facts[0]["space"] == facts[1]["space"]
    with pytest.raises(ValueError, match="has no study nobody"):
        Search(None, tmp_path / "nobody", server.url)
    with pytest.raises(ValueError, match="seeds is"):
        a_study(tmp_path / "elsewhere" / "joined", server.url, 2, base={}, seeds=(5,))


def test_a_worker_of_a_journal_is_not_sent_to_a_database(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_STORAGE", "postgresql://me@host/db")
    assert "WORKBENCH_STORAGE" not in in_child(tmp_path, 0, None)[1]


def test_the_password_is_nowhere(tmp_path, server):
    search, _ = a_study(tmp_path / "secret", server.url, 2, base={})
    worker = start(search, 0)
    time.sleep(0.3)
    assert server.password not in Path(f"/proc/{worker.pid}/cmdline").read_text()
    assert worker.wait(60) == 0
    wrong = {"WORKBENCH_STORAGE": server.url.replace(server.password, "wrong-secret")}
    command = [sys.executable, "-m", "workbench", "search", "worker", str(search.folder)]
    said = subprocess.run(command, env=os.environ | wrong, cwd=ROOT, capture_output=True, text=True, check=False)
    assert said.returncode == 2
    assert "authentication failed" in said.stderr
    texts = [said.stdout + said.stderr]
    texts += [path.read_text(errors="replace") for path in search.folder.rglob("*") if path.is_file()]
    assert not [text for text in texts if server.password in text or "wrong-secret" in text]
    assert json.loads((search.folder / "study.json").read_text())["storage"].startswith("postgresql://postgres:***@")


def wait_until(true: object, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
