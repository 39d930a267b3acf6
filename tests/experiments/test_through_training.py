"""When do gates form? The watched training, the order of events, and the words."""

import numpy as np
import pytest
import torch

from workbench.experiments import latch, through_training
from workbench.experiments.latching import memories
from workbench.experiments.through_training import (
    Params,
    Timeline,
    crossing,
    crossings,
    findings,
    timeline,
    watch,
    ways,
)
from workbench.runs.folder import Run

STEPS = np.array([0, 10, 20, 30])


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    return watch("mLSTM", Params.smoke(), 0, Run.create("watched", root=tmp_path_factory.mktemp("runs")))


def line(loss: list[float], opening: list[float]) -> Timeline:
    rising = np.array([0.0, 0.0, 1.0, 1.0])
    return Timeline(STEPS, np.array(loss), rising, np.array(opening), rising, 0.9)


def test_run_says_when_each_gate_formed(tmp_path):
    result = through_training.run(Params.smoke(), Run.create("through", root=tmp_path))
    assert set(result.scores) == {f"{net}, seed {seed}" for net in ("sLSTM", "mLSTM") for seed in (0, 1)}
    assert len(result.findings) == 2 * 3 * 2


def test_every_look_has_its_trace_and_its_loss(watched):
    assert list(watched.traces) == list(watched.losses) == [0, 2, 4, 6]
    assert "untrained" in watched.traces[0].notes[0]
    assert watched.traces[6].notes == []
    assert all(trace.error < 1e-4 for trace in watched.traces.values())
    found = timeline(watched)
    assert all(len(part) == 4 for part in found[:-1])
    assert 0.5 < found.memoryless < 1
    assert found.opening[0] == pytest.approx(0, abs=1e-3)  # the weights of these input gates begin at 0


def test_watching_does_not_change_what_is_learned(watched):
    params = Params.smoke()
    model = latch.build("mLSTM", params, 0)
    latch.train(model, latch.streams(params, 0), params, 0, every=params.every)
    pairs = zip(model.parameters(), watched.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_probe_is_not_what_was_learned_from(watched):
    parts = latch.streams(Params.smoke(), 0)
    first = watched.probe.inputs[0, :16]
    assert not any(torch.equal(first, row[:16]) for part in parts[:3] for row in part.inputs)


def test_a_gate_of_the_latch_is_laid_out_look_by_look(watched):
    kept = through_training.over_training(watched, "forget")
    assert kept.shape == (4, 16)
    assert np.array_equal(kept[-1], memories(watched.traces[6], "forget")[0, :, watched.number])
    assert through_training.marks_of(watched.probe).tolist() == torch.nonzero(watched.probe.marked[0])[:, 0].tolist()


@pytest.mark.parametrize(
    ("way", "part", "at"),
    [
        ([0.0, 0.0, 1.0, 1.0], 0.5, 15.0),
        ([0.0, 0.5, 0.0, 1.0], 0.5, 10.0),  # the first time counts
        ([0.0, 1 / 3, 2 / 3, 1.0], 0.1, 3.0),
        ([0.0, -9.0, -9.0, 1.0], 0.9, 29.9),  # and the other way does not
        ([1.0, 1.0, 1.0, 1.0], 0.9, 0.0),
    ],
)
def test_crossing_is_the_first_update_at_that_part_of_the_way(way, part, at):
    assert crossing(STEPS, np.array(way), part) == pytest.approx(at)


def test_what_never_moved_never_crossed():
    still = line(loss=[0.5] * 4, opening=[1.0] * 4)
    assert np.isnan(ways(still)["opening"]).all()
    assert np.isnan(crossings(still)["opening"])
    assert np.isnan(crossings(still)["loss"])


def test_the_way_of_the_loss_begins_where_a_memory_is_needed():
    found = ways(line(loss=[4.0, 1.0, 0.5, 0.1], opening=[0.0, 1.0, 2.0, 4.0]))
    assert found["loss"] == pytest.approx([0, 0, 0.5, 1])
    assert found["opening"] == pytest.approx([0, 0.25, 0.5, 1])


def test_words_say_what_was_ahead():
    early = line(loss=[1.0, 1.0, 1.0, 0.0], opening=[0.0, 5.0, 5.0, 5.0])
    late = line(loss=[1.0, 0.0, 0.0, 0.0], opening=[0.0, 0.0, 0.0, 5.0])
    assert crossings(early)["opening"] == 5
    said = findings({"sLSTM": [early, early, late]})
    assert said[2].startswith("sLSTM, 50% of the way, median update: input gate 5, ")
    assert said[3] == (
        "sLSTM, 50% of the way, ahead of the loss in 3 trainings: share of the mark 2, input gate 2, forget gate 2."
    )
