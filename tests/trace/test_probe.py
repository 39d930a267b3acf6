"""Gates through training: the training does not notice, and the traces are whole."""

import pytest
import torch

from workbench.models.forecaster import ForecasterConfig
from workbench.models.layouts import LSTMStackConfig, XLSTMStackConfig
from workbench.runs.folder import Run
from workbench.trace.probe import Probe, labels, probe_folders, read_probes
from workbench.training.fit import FitParams, fit

PARAMS = FitParams(steps=12, batch=8, lr=0.01, evaluate_every=3)


class Data:
    """Windows whose last value is to be found again."""

    def __init__(self, rows, seed=0):
        g = torch.Generator().manual_seed(seed)
        self.x = torch.randn(rows, 10, 2, generator=g)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, which):
        return self.x[which]


def build(dropout=0.3):
    stack = XLSTMStackConfig(width=16, layers=2, heads=2, slstm_at=(0,), dropout=dropout)
    return ForecasterConfig(inputs=2, known=0, horizon=1, stack=stack).build(0)


def inputs(x):
    return x, torch.zeros(len(x), 1, 0)


def loss(model, x):
    return (model(*inputs(x))[:, 0].mean(-1) - x[:, -1, 0]).square().mean()


@pytest.fixture
def run(tmp_path):
    return Run.create("probe", root=tmp_path)


def train(observers):
    model = build()
    result = fit(model, loss, Data(40), Data(16, 1), PARAMS, observers=observers(model))
    return model, result


def test_training_is_bit_equal_with_and_without_a_probe(run):
    plain, without = train(lambda model: [])
    after_plain = torch.rand(3)
    watched, with_probe = train(lambda model: [Probe(model, inputs(Data(2, 5).x), run)])
    assert torch.equal(after_plain, torch.rand(3)), "the probe drew from torch's global generator"
    for name, x in plain.state_dict().items():
        assert torch.equal(x, watched.state_dict()[name]), name
    a, b = ([{k: v for k, v in row.items() if k != "seconds"} for row in r.history] for r in (without, with_probe))
    assert a == b


def test_dropout_is_on_in_training_and_would_have_shown(run):
    """The test above can fail: two trainings with other random numbers end elsewhere."""
    a, _ = train(lambda model: [])
    b, _ = train(lambda model: [lambda record: torch.rand(1)])
    assert any(not torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_modes_and_gradients_are_left_as_they_were(run):
    model = build()
    model.train()
    next(iter(model.children())).eval()
    modes = [module.training for module in model.modules()]
    Probe(model, inputs(Data(2).x), run).probe(0)
    assert [module.training for module in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())


def test_modes_come_back_after_an_error(run):
    model = build().train()
    with pytest.raises(RuntimeError):
        Probe(model, inputs(torch.zeros(2, 10, 7)), run).probe(0)
    assert all(module.training for module in model.modules())
    assert list(run.traces.iterdir()) == []


def test_probes_are_where_the_training_looked_and_say_their_step(run):
    train(lambda model: [Probe(model, inputs(Data(2, 5).x), run, every=2)])
    probes = read_probes(run)
    assert list(probes) == [6, 12]
    assert [trace.about["step"] for trace in probes.values()] == [6, 12]
    early, late = (trace.read("blocks.0.cell.forget") for trace in probes.values())
    assert early.shape == late.shape
    assert early.shape[0] == 2
    assert abs(early - late).max() > 1e-3


def test_a_probe_sees_the_model_without_dropout(run):
    probe = Probe(build().train(), inputs(Data(2).x), run)
    a, b = (probe.trace().read("blocks.0.cell.forget") for _ in range(2))
    assert (a == b).all()


def test_the_fresh_model_is_said_to_be_untrained(run):
    Probe(build(), inputs(Data(2).x), run).probe(0)
    assert "untrained" in read_probes(run)[0].notes[0]


def test_the_inputs_are_fixed(run):
    x = Data(2).x
    probe = Probe(build(), inputs(x), run)
    before = probe.trace().read("blocks.0.cell.forget")
    x.zero_()
    assert (probe.trace().read("blocks.0.cell.forget") == before).all()


def test_a_probe_at_the_same_step_replaces_the_old_one_whole(run):
    model = build()
    probe = Probe(model, inputs(Data(2).x), run)
    probe.probe(3)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    probe.probe(3)
    assert list(read_probes(run)) == [3]
    assert "hidden" not in read_probes(run)[3].names()
    assert [path.name for path in run.traces.iterdir()] == ["probe-00000003"]


def test_half_written_probes_are_not_listed(run):
    Probe(build(), inputs(Data(2).x), run).probe(3)
    (run.traces / "probe-00000006").mkdir()
    (run.traces / "probe-00000006" / "00000.safetensors").write_bytes(b"half")
    (run.traces / "probe-late").mkdir()
    assert list(probe_folders(run)) == list(read_probes(run)) == [3]


def test_labels_keep_the_probes_of_several_models_apart(run):
    lstm = ForecasterConfig(inputs=2, known=0, horizon=1, stack=LSTMStackConfig(width=8, layers=1)).build(0)
    assert labels(run) == []
    Probe(build(), inputs(Data(2).x), run, label="xLSTM").probe(1)
    Probe(lstm, inputs(Data(2).x), run, label="LSTM").probe(2)
    assert sorted(labels(run)) == ["LSTM", "xLSTM"]
    assert (list(read_probes(run, "xLSTM")), list(read_probes(run, "LSTM")), read_probes(run)) == ([1], [2], {})


def test_what_cannot_work_is_said_at_the_door(run):
    with pytest.raises(ValueError, match="every=0 never probes; give 1"):
        Probe(build(), inputs(Data(2).x), run, every=0)
    with pytest.raises(ValueError, match=r"label='\.\./x' is no name of a folder"):
        Probe(build(), inputs(Data(2).x), run, label="../x")
    with pytest.raises(ValueError, match=r"no quantity matches \*\.forgot in MLSTM, Pool, SLSTM"):
        Probe(build(), inputs(Data(2).x), run, names=["*.forgot"]).probe(0)
    assert list(run.traces.iterdir()) == []
