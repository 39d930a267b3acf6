"""How well do an LSTM and an xLSTM forecast the next hours, beside rules that need no training?"""

import time
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from workbench.data.series import Series, detectors, read_csv
from workbench.data.windows import Batch, Split, Windows, split
from workbench.experiments.compare import Paired, blocks_of, paired
from workbench.experiments.result import Result
from workbench.models.baselines import Ridge, last_value, seasonal_naive
from workbench.models.forecaster import Forecaster, ForecasterConfig
from workbench.models.layouts import LSTMStackConfig, XLSTMStackConfig
from workbench.runs.folder import Run
from workbench.runs.params import Params as BaseParams
from workbench.runs.params import Search
from workbench.shapes import Float, Tensor
from workbench.training.checkpoint import save_checkpoint
from workbench.training.fit import FitParams, FitResult, fit
from workbench.training.metrics import coverage, pinball, scores

Network = Literal["LSTM", "xLSTM"]
FORGET_BIAS = (6.0, -1.0)  # half-lives from 280 steps down to half a step, evenly over the units of a head


class Params(BaseParams):
    """Parameters of the forecast.

    Attributes:
        data: a CSV file of one's own; empty takes the detectors that ship.
        time: its column of times.
        target: its column of numbers.
        window: steps of the past that a network sees.
        horizon: steps ahead.
        lstm_width: width of the LSTM.
        xlstm_width: width of the xLSTM, a multiple of heads.
        layers: layers of the LSTM, blocks of the xLSTM.
        heads: heads of the xLSTM.
        slstm_at: blocks of the xLSTM that are sLSTM; the others are mLSTM.
        networks: which of the two are trained.
        steps: updates of each network.
        batch: windows in an update.
        lr: step size.
        weight_decay: of the matrices.
        evaluate_every: updates between two looks at the validation windows.
        patience: looks without a better one before training stops.
        valid_windows: validation windows at most, evenly spread.
        seed: of the weights and of the order of the windows.
    """

    data: str = ""
    time: str = ""
    target: str = ""
    window: Annotated[int, Field(ge=2, le=10_000)] = 48
    horizon: Annotated[int, Field(ge=1, le=1_000)] = 16
    lstm_width: Annotated[int, Field(ge=4, le=4_096), Search(16, 256, log=True, when={"networks": "LSTM"})] = 64
    xlstm_width: Annotated[
        int, Field(ge=4, le=4_096), Search(choices=(16, 32, 64, 128, 256), when={"networks": "xLSTM"})
    ] = 32
    layers: Annotated[int, Field(ge=1, le=64), Search(1, 4)] = 2
    heads: Annotated[int, Field(ge=1, le=64)] = 4
    slstm_at: tuple[int, ...] = (0,)
    networks: tuple[Network, ...] = ("LSTM", "xLSTM")
    steps: Annotated[int, Field(ge=1)] = 360
    batch: Annotated[int, Field(ge=1)] = 64
    lr: Annotated[float, Field(gt=0, le=1), Search(1e-4, 1e-2, log=True)] = 3e-3
    weight_decay: Annotated[float, Field(ge=0, le=1), Search(1e-4, 1e-1, log=True)] = 0.01
    evaluate_every: Annotated[int, Field(ge=1)] = 60
    patience: Annotated[int, Field(ge=1)] = 5
    valid_windows: Annotated[int, Field(ge=1)] = 1024
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @classmethod
    def smoke(cls) -> "Params":
        """Seconds: enough to see that everything runs."""
        widths = {"lstm_width": 16, "xlstm_width": 16}
        return cls(window=24, horizon=8, steps=8, batch=16, evaluate_every=4, valid_windows=64, **widths)

    @classmethod
    def paper(cls) -> "Params":
        """Wider, deeper and longer, for a GPU or an evening."""
        return cls(window=96, lstm_width=256, xlstm_width=128, layers=4, slstm_at=(1,), steps=4000, lr=1e-3)

    @model_validator(mode="after")
    def _fits(self) -> "Params":
        if wrong := [at for at in self.slstm_at if not 0 <= at < self.layers]:
            raise ValueError(f"slstm_at holds {wrong}, and layers={self.layers} leaves blocks 0 to {self.layers - 1}")
        if not self.networks or len(set(self.networks)) < len(self.networks):
            raise ValueError(f"networks={self.networks} names none, or one twice; give LSTM, xLSTM or both")
        if self.xlstm_width % self.heads:
            raise ValueError(f"xlstm_width={self.xlstm_width} is not a multiple of heads={self.heads}")
        if len({bool(self.data), bool(self.time), bool(self.target)}) > 1:
            raise ValueError("data, time and target go together: a file, its column of times, its column of numbers")
        return self

    def fit_params(self) -> FitParams:
        """The part that the training loop takes."""
        names = FitParams.model_fields.keys() & type(self).model_fields.keys()
        return FitParams(**{name: getattr(self, name) for name in names})


def load(params: Params) -> Series:
    """The series to forecast: a person's own file, or the detectors that ship."""
    if params.data:
        return read_csv(params.data, time=params.time, target=params.target)
    return detectors()


def prepare(series: Series, params: Params) -> Split:
    """Windows for training, validation and test, in time order."""
    return split(series, window=params.window, horizon=params.horizon)


def baselines(parts: Split) -> dict[str, Float[Tensor, "N P"]]:
    """Forecasts of the test windows by the rules, in the data's unit.

    Which season is repeated (a day, a week) and how much ridge is penalised is decided on the validation windows.
    """
    table, test, valid = parts.test.table, everything(parts.test), everything(parts.valid)
    forecasts = {"last value": last_value(test)}
    if table.seasons:
        count = len(table.seasons)
        errors = [(seasonal_naive(valid, count, k) - valid.target).abs().mean() for k in range(count)]
        best = int(torch.stack(errors).argmin())
        forecasts["seasonal naive"] = seasonal_naive(test, count, best)
    ridge = Ridge(table.horizon, table.scaled.shape[1], min(48, table.window)).fit(parts.train, parts.valid)
    forecasts["ridge"] = ridge.predict(parts.test)
    return {name: parts.test.unscale(forecast) for name, forecast in forecasts.items()}


def build(network: Network, parts: Split, params: Params) -> Forecaster:
    """The forecaster around an LSTM or an xLSTM, with fresh weights."""
    stacks = {
        "LSTM": LSTMStackConfig(width=params.lstm_width, layers=params.layers),
        "xLSTM": XLSTMStackConfig(
            width=params.xlstm_width,
            layers=params.layers,
            heads=params.heads,
            slstm_at=params.slstm_at,
            forget_bias=FORGET_BIAS,
        ),
    }
    batch = parts.train[torch.tensor([0])]
    config = ForecasterConfig(
        inputs=batch.past.shape[-1], known=batch.known.shape[-1], horizon=params.horizon, stack=stacks[network]
    )
    return config.build(params.seed)


def train(network: Network, parts: Split, params: Params, run: Run | None = None) -> tuple[Forecaster, FitResult]:
    """Train one network; with a run, keep its progress and its checkpoint there, and go on where they stand."""
    model = build(network, parts, params)
    quantiles = model.config.quantiles

    def loss(model: Forecaster, batch: Batch) -> Tensor:
        return pinball(model(batch.past, batch.known), batch.target, quantiles)

    folder = None if run is None else Path(run.checkpoints) / network
    observers = () if run is None else (lambda record: run.log(**record),)
    valid = parts.valid.thin(params.valid_windows)
    result = fit(
        model, loss, parts.train, valid, params.fit_params(),
        seed=params.seed, folder=folder, observers=observers, label=network,
    )  # fmt: skip
    if folder is not None:
        scaler = parts.train.table.scaler
        seen = {"step": result.best_step, "valid_loss": result.best_valid if result.history else None}
        scaling = {"names": scaler.names, "mean": scaler.mean.tolist(), "std": scaler.std.tolist()}
        save_checkpoint(folder / "model", model, extra={**seen, "end": result.end, "scaler": scaling})
    return model, result


@torch.no_grad()
def predict(model: Forecaster, windows: Windows) -> Float[Tensor, "N P Q"]:
    """The quantiles of every window, in the data's unit."""
    model.eval()
    parts = (windows[rows] for rows in torch.arange(len(windows)).split(512))
    return windows.unscale(torch.cat([model(part.past, part.known) for part in parts]))


def evaluate(parts: Split, forecasts: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """Errors of every forecast on the test windows, smallest first; a forecast with quantiles also has its coverage.

    Args:
        parts: the windows.
        forecasts: name to (N, P), or (N, P, 3) with a low and a high quantile around the median.
    """
    truth = parts.test.unscale(everything(parts.test).target)
    table = {}
    for name, forecast in forecasts.items():
        table[name] = scores(median(forecast), truth)
        if forecast.ndim == 3:
            table[name]["coverage"] = coverage(forecast[..., 0], forecast[..., -1], truth)
    return dict(sorted(table.items(), key=lambda row: row[1]["mae"]))


def compare(parts: Split, forecasts: dict[str, Tensor], first: str, second: str, steps_in_a_day: int) -> Paired:
    """The paired difference in absolute error of two forecasts of the test windows."""
    truth = parts.test.unscale(everything(parts.test).target)
    a, b = ((median(forecasts[name]) - truth).abs() for name in (first, second))
    return paired(a, b, blocks_of(parts.test, max(steps_in_a_day, parts.test.table.horizon)))


def median(forecast: Tensor) -> Float[Tensor, "N P"]:
    """The middle quantile of a forecast that has quantiles, or the forecast itself."""
    return forecast[..., forecast.shape[-1] // 2] if forecast.ndim == 3 else forecast


def everything(windows: Windows) -> Batch:
    """All windows side by side."""
    return windows[torch.arange(len(windows))]


def error_by_step(parts: Split, forecast: Tensor) -> np.ndarray:
    """Mean absolute error of a forecast of the test windows at each step ahead (P,), in the data's unit."""
    truth = parts.test.unscale(everything(parts.test).target)
    return (median(forecast) - truth).abs().mean(0).numpy()


def findings(parts: Split, forecasts: dict[str, Tensor], unit: str, step_hours: float) -> list[str]:
    """What the errors say, in sentences: who leads, whether by more than chance, and how good the bands are."""
    table = evaluate(parts, forecasts)
    steps_in_a_day = max(round(24 / step_hours), 1)
    best, *others = table
    sentences = [f"{best} has the smallest mean absolute error: {table[best]['mae']:.2f} {unit}."]
    for other in others:
        result = compare(parts, forecasts, best, other, steps_in_a_day)
        share = -result.difference / max(table[other]["mae"], 1e-12)
        sentences.append(
            f"Against {other} ({table[other]['mae']:.2f}) it is {result.verdict}: {share:.1%} less error, 95 % "
            f"interval of the difference {result.low:.2f} ... {result.high:.2f}, {result.blocks} blocks."
        )
    for name, row in table.items():
        if "coverage" in row:
            sentences.append(f"The 80 % band of {name} held {row['coverage']:.0%} of the test values.")
    sentences.append("One seed: train with another one before believing a small lead.")
    return sentences


def run(params: Params, run: Run | None = None) -> Result:
    """Answer the question once: load, train the networks, compare."""
    begin = time.monotonic()
    series = load(params)
    parts = prepare(series, params)
    forecasts, valid, costs = baselines(parts), {}, {}
    for network in params.networks:
        costs[network] = cost(build(network, parts, params), parts.train)
        if run is not None:
            run.out("costs", costs)  # known before the training: a search may stop it for what it costs
        model, result = train(network, parts, params, run)
        if result.end == "interrupted":
            raise KeyboardInterrupt(f"{network} was interrupted at step {result.step}; its checkpoint is kept.")
        forecasts[network], valid[network] = predict(model, parts.test), result.best_valid
    return Result(
        experiment=__name__,
        params=params.model_dump(mode="json"),
        unit=series.unit,
        scores=evaluate(parts, forecasts),
        findings=findings(parts, forecasts, series.unit, series.step_hours),
        seconds=time.monotonic() - begin,
        valid=valid,
        costs=costs,
        blocks=by_block(parts, forecasts, max(round(24 / series.step_hours), 1)),
    )


@torch.no_grad()
def cost(model: Forecaster, windows: Windows) -> dict[str, float | int]:
    """Number of parameters, and milliseconds of a forward pass of one window, the median of eleven after one."""
    batch, times = windows[torch.tensor([0])], []
    model.eval()
    for _ in range(12):
        begin = time.perf_counter()
        model(batch.past, batch.known)
        times.append(1e3 * (time.perf_counter() - begin))
    return {"parameters": sum(x.numel() for x in model.parameters()), "latency_ms": float(np.median(times[1:]))}


def by_block(parts: Split, forecasts: dict[str, Tensor], steps_in_a_day: int) -> dict[str, list[float]]:
    """Mean absolute error of every forecast in each block of the test windows, in the data's unit."""
    truth = parts.test.unscale(everything(parts.test).target)
    blocks = blocks_of(parts.test, max(steps_in_a_day, parts.test.table.horizon))
    errors = {name: (median(forecast) - truth).abs().mean(1) for name, forecast in forecasts.items()}
    return {name: [float(error[blocks == block].mean()) for block in blocks.unique()] for name, error in errors.items()}


def liveliest(windows: Windows, channel: int) -> Tensor:
    """Number of the window of a channel whose past changes most, as an index of length one."""
    rows = torch.nonzero(windows.index[:, 1] == channel)[:, 0]
    past = windows[rows].past[..., 0]
    return rows[(past.amax(1) - past.amin(1)).argmax()][None]
