"""Traces on disk: the same numbers, read a stretch at a time, without the model; names of other tools."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from workbench.models.layouts import LSTMStackConfig, RWKV7StackConfig, XLSTMStackConfig
from workbench.trace.names import ALIASES, NAMES, kind_of
from workbench.trace.record import record, stream
from workbench.trace.store import Trace


def stack():
    torch.manual_seed(0)
    return XLSTMStackConfig(width=8, heads=2, layers=2, slstm_at=(1,)).build()


def traced(model=None, steps=20, **options):
    model = model or stack()
    with record(model, **options) as trace:
        model(torch.randn(2, steps, 8, generator=torch.Generator().manual_seed(1)), lengths=torch.tensor([steps, 5]))
    return trace


def test_a_saved_trace_is_the_trace(tmp_path):
    trace = traced()
    again = Trace.load(trace.save(tmp_path / "t"))
    assert again.names() == trace.names()
    assert again.exactness == trace.exactness
    assert again.about == trace.about
    for name in trace.names():
        np.testing.assert_array_equal(again.read(name), trace.read(name))
    assert again["blocks.1.cell.forget"].dims == ("batch", "head", "time", "unit")
    assert again.steps == 20


def test_loading_needs_no_model_and_reads_no_more_than_asked(tmp_path):
    traced().save(tmp_path / "t")
    code = (
        "import sys\n"
        "from workbench.trace.store import Trace\n"
        f"trace = Trace.load({str(tmp_path / 't')!r})\n"
        "print(trace.read('blocks.0.cell.forget', 3, 7).shape)\n"
        "print(any(name.startswith(('workbench.models', 'workbench.cells')) for name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["(2, 2, 4)", "False"]


def test_a_stretch_is_the_same_from_memory_from_one_file_and_from_pieces(tmp_path):
    model, x = stack(), torch.randn(1, 50, 8)
    with record(model) as whole:
        model(x)
    stored = Trace.load(whole.save(tmp_path / "whole"))
    pieces = stream(model, x.split(7, 1), tmp_path / "pieces", steps=50)
    for trace, tolerance in ((stored, 0), (pieces, 2e-5), (Trace.load(tmp_path / "pieces"), 2e-5)):
        assert trace.steps == 50
        for name in whole.names():
            for start, stop in ((0, None), (6, 8), (13, 36), (49, 50), (40, 99)):
                found, wanted = trace.read(name, start, stop), whole.read(name)[:, :, start:stop]
                np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)
    assert pieces.exactness.keys() == whole.exactness.keys()
    assert pieces.cells["blocks.0.cell"]["carried"] is False


def test_pieces_that_are_not_joined_keep_the_last_run():
    model = stack()
    with record(model) as trace:
        _, state = model(torch.randn(1, 6, 8))
        model(torch.randn(1, 4, 8), state)
    assert trace.steps == 4
    assert trace.cells["blocks.0.cell"]["carried"] is True


def test_a_long_stream_is_traced_within_bounded_memory(tmp_path):
    code = (
        "import sys, resource, torch\n"
        "from workbench.models.layouts import LSTMStackConfig\n"
        "from workbench.trace.record import stream\n"
        "torch.set_num_threads(1)\n"
        "model, steps = LSTMStackConfig(width=64, layers=1).build(), int(sys.argv[1])\n"
        "pieces = (torch.randn(1, 500, 64) for _ in range(steps // 500))\n"
        "trace = stream(model, pieces, sys.argv[2], steps=steps)\n"
        "print(trace.steps, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )

    def peak(steps):
        command = [sys.executable, "-c", code, str(steps), str(tmp_path / str(steps))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found, kilobytes = done.stdout.split()
        assert int(found) == steps
        return int(kilobytes) / 1024

    growth = peak(16_000) - peak(2_000)
    written = sum(file.stat().st_size for file in (tmp_path / "16000").glob("*.safetensors")) / 2**20
    assert written > 25
    assert growth < written / 4


def test_names_of_other_tools_are_understood():
    model = RWKV7StackConfig(width=64, layers=1).build()
    with record(model) as trace:
        model(torch.randn(1, 4, 64))
    for theirs, own in (("hook_ssm_decay", "forget"), ("hook_ssm_B", "key"), ("hook_ssm_C", "query")):
        assert trace.find(f"blocks.0.cell.{theirs}") == f"blocks.0.cell.{own}"
        assert trace.find(theirs) == f"blocks.0.cell.{own}"
    assert trace.find("hook_ssm_write") == "blocks.0.cell.input"
    assert {own for names in ALIASES.values() for own in names} <= set(NAMES)
    assert set(ALIASES).isdisjoint(NAMES)


def test_names_are_filtered_and_kinds_are_known():
    trace = traced()
    assert trace.names("*.forget") == ["blocks.0.cell.forget", "blocks.1.cell.forget"]
    assert trace.names("blocks.1.cell.f*") == ["blocks.1.cell.forget"]
    assert trace.kind("blocks.0.cell.half_life") == "steps"
    assert kind_of("anything.else") == "signed"


def test_a_name_that_is_not_there_lists_the_nearest(tmp_path):
    trace = Trace.load(traced().save(tmp_path / "t"))
    with pytest.raises(KeyError, match=r"no 'blocks.0.cell.fourget'; the nearest are .*blocks\.0\.cell\.forget"):
        trace.read("blocks.0.cell.fourget")
    with pytest.raises(ValueError, match=r"has 20 steps, and none from 20 to 30; ask for steps in 0 \.\.\. 20"):
        trace.read("blocks.0.cell.forget", 20, 30)


def test_what_is_no_whole_trace_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no trace \(trace.json is missing\)"):
        Trace.load(tmp_path)
    folder = traced().save(tmp_path / "t")
    card = json.loads((folder / "trace.json").read_text())
    (folder / "trace.json").write_text(json.dumps({**card, "format": 9}))
    with pytest.raises(ValueError, match="has trace format 9, and this version reads 1"):
        Trace.load(folder)
    (folder / "trace.json").unlink()
    with pytest.raises(FileNotFoundError, match="holds pieces of one that was not finished"):
        Trace.load(folder)
    (folder / "trace.json").write_text(json.dumps(card))
    (folder / "00000.safetensors").write_bytes(b"\x08\x00\x00")
    with pytest.raises(ValueError, match="is damaged"):
        Trace.load(folder)


def test_a_folder_with_a_trace_is_not_overwritten_by_a_recording(tmp_path):
    traced(folder=tmp_path / "t")
    with pytest.raises(ValueError, match="holds a trace already; name another folder"):
        traced(folder=tmp_path / "t")


def test_two_traces_say_where_they_differ(tmp_path):
    trace, other = traced(), traced(LSTMStackConfig(width=8, layers=1).build())
    assert trace.differences(traced()) == []
    said = " ".join(trace.differences(other))
    assert "blocks.0.cell is MLSTM there and LSTM here" in said
    assert "blocks.1.cell" in said
    moved = stack()
    with torch.no_grad():
        moved.blocks[0].cell.skip.add_(1)
    assert trace.differences(traced(moved)) == ["the weights differ"]


def test_not_a_number_stays_one_in_the_file(tmp_path):
    trace = Trace({"a.forget": torch.tensor([[[0.5, torch.nan]]])}, exactness={"a": float("nan")})
    again = Trace.load(trace.save(tmp_path / "t"))
    assert np.isnan(again.error)
    assert np.isnan(again.read("a.forget")[0, 0, 1])


def test_half_precision_is_readable():
    model = stack().bfloat16()
    with record(model) as trace:
        model(torch.randn(1, 4, 8, dtype=torch.bfloat16))
    assert trace.read("blocks.0.cell.query").dtype == np.float32
