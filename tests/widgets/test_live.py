"""The live view without a browser: what it reads from a run folder, what it draws, what it asks."""

import asyncio
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from workbench.runs.folder import Run
from workbench.runs.provenance import this_process
from workbench.runs.status import Failure, Status
from workbench.trace.store import Trace
from workbench.training.control import Control, Request, ask
from workbench.widgets import live as live_module
from workbench.widgets.following import Following, span
from workbench.widgets.live import Live


@pytest.fixture
def run(tmp_path):
    run = Run.create("live", root=tmp_path)
    Status(state="running", **this_process()).write(run.path)
    return run


def look(run, step, label="xLSTM", train=1.0, valid=2.0):
    run.log(label=label, step=step, train_loss=train, valid_loss=valid)


def probe(run, step, label="", **arrays):
    folder = run.traces / label / f"probe-{step:08d}"
    return Trace({f"blocks.0.cell.{name}": torch.tensor(x) for name, x in arrays.items()}).save(folder)


def following(run):
    found = Following(run)
    found.read()
    return found


# --- what it reads


def test_the_line_says_how_far_and_how_long(run):
    run.event("progress", label="xLSTM", done=1200, total=3600, seconds_left=95.0)
    assert following(run).line() == "running: xLSTM 1,200 of 3,600, about 2 min left"


def test_a_finished_line_has_its_time_and_its_error(run):
    failure = Failure(name="Diverged", value="the loss is nan", hint="Try a smaller lr.")
    Status(state="diverged", seconds=12.3, error=failure).write(run.path)
    assert following(run).line() == "diverged, after 12 s. Diverged: the loss is nan Try a smaller lr."


def test_a_killed_run_is_said_to_be_killed(run):
    Status(state="running", **{**this_process(), "process_start": "long ago"}).write(run.path)
    assert following(run).line().startswith("killed. Killed: The process that watched over this run is gone")


@pytest.mark.parametrize(("seconds", "words"), [(12, "12 s"), (300, "5 min"), (7500, "2 h 5 min")])
def test_times_are_said_shortly(seconds, words):
    assert span(seconds) == words


def test_curves_grow_with_what_the_log_gains(run):
    view = following(run)
    assert view.curves() == {}
    look(run, 5, train=3.0)
    view.read()
    look(run, 10, train=math.nan)
    view.read()
    look(run, 10, label="LSTM")
    (run.path / "metrics.jsonl").open("a").write('{"step": 15, "train_lo')  # being written
    view.read()
    assert view.curves() == {
        "xLSTM": {"train_loss": [[5, 10], [3, None]], "valid_loss": [[5, 10], [2, 2]]},
        "LSTM": {"train_loss": [[10], [1]], "valid_loss": [[10], [2]]},
    }


def test_long_curves_are_thinned_and_keep_their_spikes(run):
    lines = [{"label": "xLSTM", "step": step, "train_loss": 1 + step % 7, "valid_loss": 2.0} for step in range(20_000)]
    lines[12_345]["train_loss"] = 99.0
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    x, y = following(run).curves()["xLSTM"]["train_loss"]
    assert len(x) <= 320
    assert y[x.index(12_345)] == 99
    assert (x[0], x[-1]) == (0, 19_999)


def test_numbers_that_are_none_are_left_out(run):
    for record in ({"label": "a"}, {"label": "a", "step": "x"}, {"label": "a", "step": 1, "train_loss": "low"}):
        run.log(**record)
    assert following(run).curves() == {}


# --- pictures


def test_bounded_gates_have_a_fixed_scale(run):
    probe(run, 3, forget=np.linspace(0.2, 0.6, 2 * 2 * 5 * 3, dtype=np.float32).reshape(2, 2, 5, 3))
    picture = following(run).picture("", "blocks.0.cell.forget", 3, 1)
    assert (picture.low, picture.high, picture.heads, picture.steps) == (0.0, 1.0, 2, 5)
    assert picture.levels.shape == (6, 5)
    values = np.linspace(0.2, 0.6, 60, dtype=np.float32).reshape(2, 2, 5, 3)[1]
    assert picture.levels[4, 2] == round(254 * values[1, 2, 1])


def test_what_is_not_a_number_has_a_colour_of_its_own_and_is_counted(run):
    values = np.full((1, 1, 4, 2), 0.5, np.float32)
    values[0, 0, 2, 1] = np.nan
    values[0, 0, 3, 0] = np.inf
    probe(run, 3, forget=values)
    picture = following(run).picture("", "blocks.0.cell.forget", 3, 0)
    assert (picture.levels == 255).sum() == picture.missing == 2
    assert "2 values are not numbers" in picture.words


def test_half_lives_are_drawn_by_their_logarithm_up_to_ten_windows(run):
    probe(run, 3, half_life=np.array([1.0, 10.0, 1e9], np.float32).reshape(1, 1, 1, 3).repeat(10, 2))
    picture = following(run).picture("", "blocks.0.cell.half_life", 3, 0)
    assert (picture.low, picture.high, picture.log) == (0.0, 2.0, True)
    assert picture.levels[:, 0].tolist() == [0, 127, 254]


def test_signed_and_positive_quantities_have_the_scale_of_all_probes(run):
    for step, size in ((1, 1.0), (2, 4.0)):
        ramp = size * np.linspace(-1, 0.5, 6, dtype=np.float32).reshape(1, 1, 6, 1)
        probe(run, step, cell=ramp, surprise=np.abs(ramp[..., 0]))
    view = following(run)
    signed = [view.picture("", "blocks.0.cell.cell", step, 0) for step in (1, 2)]
    assert [(p.low, p.high) for p in signed] == [(-4.0, 4.0)] * 2
    assert (view.picture("", "blocks.0.cell.surprise", 1, 0).low, signed[0].levels[0, 0]) == (0.0, round(254 * 3 / 8))
    assert view.picture("", "blocks.0.cell.surprise", 1, 0).high == 4.0


def test_large_traces_are_pooled(run):
    probe(run, 1, forget=np.random.default_rng(0).random((1, 4, 2000, 64), np.float32))
    picture = following(run).picture("", "blocks.0.cell.forget", 1, 0)
    assert picture.levels.shape[0] <= 96
    assert picture.levels.shape[1] <= 360
    assert abs(picture.levels.mean() / 254 - 0.5) < 0.02


def test_a_probe_that_was_written_again_is_read_again(run):
    probe(run, 1, cell=np.ones((1, 1, 3, 1), np.float32))
    view = following(run)
    assert view.picture("", "blocks.0.cell.cell", 1, 0).high == 1.0
    shutil.rmtree(run.traces / "probe-00000001")
    probe(run, 1, cell=np.full((1, 1, 3, 1), 7, np.float32))
    assert view.picture("", "blocks.0.cell.cell", 1, 0).high == 7.0


# --- the widget


def test_all_state_is_in_the_folder(run):
    look(run, 5)
    probe(run, 5, forget=np.ones((2, 1, 3, 1), np.float32))
    first = Live(run)
    first.ask("probe")
    again = Live(str(run.path))
    for trait in ("name", "state", "curves", "requests", "probes"):
        assert getattr(first, trait) == getattr(again, trait)
    assert again.probes == {"": {"steps": [5], "names": ["blocks.0.cell.forget"], "sequences": 2}}


def test_a_request_is_asked_then_done(run):
    live = Live(run)
    identity = live.ask("stop")
    assert [(r["id"], r["answer"]) for r in live.requests] == [(identity, "asked")]
    assert live.requests[0]["words"].endswith("not seen yet")
    (request,) = Control(run).requests()
    live.refresh()
    assert live.requests[0]["answer"] == "seen"
    Control(run).answer(request, "done", step=1234)
    live.refresh()
    assert live.requests[0]["words"].endswith("done at step 1,234")


def test_a_refusal_is_shown_with_its_reason(run):
    identity = ask(run, "probe")
    Control(run).answer(Request(identity, "probe"), "refused", step=3, why="this training has no probe")
    assert "refused at step 3: this training has no probe" in Live(run).requests[0]["words"]


def test_buttons_ask_and_nothing_else_does(run):
    live = Live(run)
    for content in ({"ask": "stop"}, {"ask": "rm"}, {"ask": ["stop"]}, {}, {"ask": None}):
        live._receive(live, content, [])
    assert [request["action"] for request in live.requests] == ["stop"]


def test_a_scope_opens_over_the_probes_and_closes(run):
    live = Live(run)
    assert live.open_scope() is None
    for step in (1, 2):
        probe(run, step, forget=np.ones((1, 1, 3, 1), np.float32))
    live._receive(live, {"scope": ""}, [])
    scope = live.scope
    assert [label["label"] for label in scope.meta["labels"]] == ["1", "2"]
    live._receive(live, {"scope": None}, [])
    assert live.scope is None
    assert scope.comm is None


def test_a_picture_that_is_gone_is_an_answer_and_no_error(run, monkeypatch):
    sent = []
    live = Live(run)
    monkeypatch.setattr(live, "send", lambda content, buffers=None: sent.append((content, buffers)))
    probe(run, 1, forget=np.ones((1, 1, 3, 1), np.float32))
    live.refresh()
    wanted = {"label": "", "name": "blocks.0.cell.forget", "step": 1, "sequence": 0}
    live._receive(live, {"picture": wanted}, [])
    live._receive(live, {"picture": {**wanted, "step": 2}}, [])
    live._receive(live, {"picture": {**wanted, "sequence": 9}}, [])
    live._receive(live, {"picture": {"label": ""}}, [])
    assert sent[0][0]["columns"] == 3
    assert len(sent[0][1][0]) == 3
    assert ["error" in content for content, _ in sent] == [False, True, True, True]


def test_it_follows_until_the_end_and_no_longer(run):
    async def follow():
        live = Live(run, seconds=0.01)
        look(run, 5)
        await asyncio.sleep(0.05)
        seen = dict(live.curves)
        look(run, 10)
        Status(state="ok", seconds=1.0).write(run.path)
        await asyncio.wait_for(live._task, 5)
        return live, seen

    live, seen = asyncio.run(follow())
    assert seen["xLSTM"]["valid_loss"] == [[5], [2]]
    assert live.curves["xLSTM"]["valid_loss"] == [[5, 10], [2, 2]]  # what came with the end is shown, too
    assert live.state == {"name": "ok", "line": "ok, after 1 s", "finished": True, "done": None}


def test_a_closed_view_follows_no_longer(run):
    async def follow():
        live = Live(run, seconds=0.01)
        live.close()
        await asyncio.wait_for(live._task, 5)

    asyncio.run(follow())


def test_a_damaged_file_is_said_and_the_view_goes_on(run):
    live = Live(run)
    folder = probe(run, 5, forget=np.ones((1, 1, 3, 1), np.float32))
    (folder / "00000.safetensors").write_bytes(b"no")
    (run.path / "status.json").write_text("{")
    live.refresh()
    assert "status.json is not readable JSON" in live.state["line"]
    Status(state="ok").write(run.path)
    live.refresh()
    assert "probe-00000005 is damaged" in live.state["line"]
    shutil.rmtree(folder)
    live.refresh()
    assert live.state["line"] == "ok"


def test_a_folder_that_was_removed_ends_it(run):
    live = Live(run)
    shutil.rmtree(run.path)
    live.refresh()
    assert (live.finished, live.state["line"]) == (True, f"the folder {run.path} is gone")


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="No run"):
        Live(tmp_path / "nothing")


def test_it_takes_no_more_than_50_kb_in_a_notebook(run):
    rng = np.random.default_rng(0)
    with open(run.path / "metrics.jsonl", "w") as file:
        for label in ("LSTM", "xLSTM", "RWKV-7", "Gated DeltaNet", "Titans"):
            for step in range(3000):
                losses = {"train_loss": rng.random(), "valid_loss": rng.random()}
                file.write(json.dumps({"label": label, "step": 7 * step, **losses}) + "\n")
    for step in range(0, 2000, 10):
        probe(run, step, forget=np.ones((1, 1, 2, 1), np.float32))
    for _ in range(50):
        ask(run, "probe")
    state = Live(run).get_state()
    assert len(json.dumps(state)) < 50_000


def test_a_look_that_finds_nothing_new_is_cheap(run):
    import time

    for step in range(0, 2000, 10):
        look(run, step)
        probe(run, step, forget=np.ones((1, 1, 2, 1), np.float32))
    live = Live(run)
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        live.refresh()
        times.append(time.perf_counter() - begin)
    print(f"a look takes {1e3 * min(times):.1f} ms")
    assert min(times) < 0.1


@pytest.mark.parametrize("file", ["live.js", "live.css"])
def test_the_view_asks_for_nothing_from_elsewhere(file):
    text = (Path(live_module.__file__).parent / file).read_text().replace("http://www.w3.org/2000/svg", "")
    assert [word for word in ("http:", "https:", "@import", "url(", "eval(", "innerHTML") if word in text] == []
