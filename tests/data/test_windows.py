"""Windows: time order, no look-ahead, no gap, scaling from training rows only."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests.data.series import daily
from workbench.data.calendar import calendar, seasons
from workbench.data.windows import split

WINDOW, HORIZON = 24, 6


def windows_of(series):
    return split(series, window=WINDOW, horizon=HORIZON)


def test_parts_follow_each_other_in_time():
    parts = windows_of(daily(days=40))
    first = [int(part.index[:, 0].min()) for part in parts[:3]]
    last = [int(part.index[:, 0].max()) + HORIZON for part in parts[:3]]
    assert first[0] >= 168  # a week for the seasonal lag
    assert last[0] <= first[1] <= last[1] <= first[2]
    assert last[2] == 40 * 24


def test_a_window_holds_its_past_and_its_target():
    series = daily(days=40, noise=1.0, channels=2)
    parts = windows_of(series)
    rows = torch.tensor([0, 7])
    batch = parts.test[rows]
    for b, (origin, channel) in enumerate(parts.test.index[rows].tolist()):
        values = parts.test.unscale(torch.zeros(len(parts.test), 1))  # the mean of each window's channel
        scaler = parts.test.table.scaler
        assert values[rows[b], 0] == pytest.approx(scaler.mean[channel])
        wanted = (series.values[:, channel] - scaler.mean[channel]) / scaler.std[channel]
        assert_close(batch.past[b, :, 0].double().numpy(), wanted[origin - WINDOW : origin], rtol=1e-5, atol=1e-5)
        assert_close(batch.target[b].double().numpy(), wanted[origin : origin + HORIZON], rtol=1e-5, atol=1e-5)
        assert_close(batch.known[b, :, -1].double().numpy(), wanted[origin - 168 : origin - 162], rtol=1e-5, atol=1e-5)


def test_the_future_cannot_be_seen():
    """Poison everything from an origin on: what a window at that origin reads stays as it was."""
    series = daily(days=40, noise=1.0)
    parts = windows_of(series)
    row = torch.tensor([len(parts.test) // 2])
    origin = int(parts.test.index[row, 0])
    poisoned = series.values.copy()
    poisoned[origin:] = 1e6
    again = windows_of(dataclasses.replace(series, values=poisoned)).test
    before, after = parts.test[row], again[row]
    assert int(again.index[row, 0]) == origin
    assert torch.equal(before.past, after.past)
    assert torch.equal(before.known, after.known)
    assert (before.target != after.target).all()


def test_scaler_sees_training_rows_only():
    series = daily(days=40, noise=1.0)
    changed = series.values.copy()
    changed[int(0.7 * len(changed)) :] *= 100
    one, other = (windows_of(s).train.table.scaler for s in (series, dataclasses.replace(series, values=changed)))
    assert np.array_equal(one.mean, other.mean)
    assert np.array_equal(one.std, other.std)


def test_windows_that_touch_a_gap_are_left_out():
    series = daily(days=40, noise=1.0, channels=2)
    values = series.values.copy()
    hole = 400
    values[hole, 1] = np.nan
    parts = windows_of(dataclasses.replace(series, values=values))
    index = torch.cat([part.index for part in parts[:3]])
    for part in parts[:3]:
        batch = part[torch.arange(len(part))]
        assert all(torch.isfinite(x).all() for x in batch)
    origins = set(index[index[:, 1] == 1][:, 0].tolist())
    reach = [
        range(hole - HORIZON + 1, hole + WINDOW + 1),
        *(range(hole + lag - HORIZON + 1, hole + lag + 1) for lag in (24, 168)),
    ]
    touched = {origin for span in reach for origin in span}
    assert not origins & touched
    whole = windows_of(series)
    every = torch.cat([part.index for part in whole[:3]])
    assert parts.skipped == len(touched & set(every[every[:, 1] == 1][:, 0].tolist()))
    assert origins | touched >= set(every[every[:, 1] == 1][:, 0].tolist())


def test_thin_keeps_first_and_last():
    train = windows_of(daily(days=40)).train
    thin = train.thin(5)
    assert len(thin) == 5
    assert torch.equal(thin.index[[0, -1]], train.index[[0, -1]])
    assert len(train.thin(10**6)) == len(train)


def test_too_short_a_series_says_how_long_it_must_be():
    with pytest.raises(ValueError, match=r"has 30 rows; window=24 and horizon=6 need at least \d+") as error:
        windows_of(daily(values=np.arange(30.0)))
    need = int(str(error.value).split("at least ")[1].split(".")[0])
    wave = np.sin(np.arange(need))
    assert all(len(part) for part in windows_of(daily(values=wave))[:3])


def test_constant_series_is_refused():
    with pytest.raises(ValueError, match=r"'channel 0' is constant \(3.3\) in the training rows"):
        windows_of(daily(values=np.full(500, 3.3)))  # whose computed spread is not exactly 0
    with pytest.raises(ValueError, match="'channel 0' was never measured"):
        windows_of(daily(values=np.full(500, np.nan)))


def test_calendar_repeats_and_tells_the_weekend():
    hours = np.datetime64("2024-01-01", "s") + np.arange(24 * 14) * np.timedelta64(3600, "s")  # from a Monday
    features = calendar(hours, 1.0)
    assert_close(features[:168], features[168:], rtol=0, atol=1e-5)
    assert np.array_equal(features[::24, -1], [0, 0, 0, 0, 0, 1, 1] * 2)
    assert calendar(hours, 24.0 * 30).shape == (len(hours), 0)


@pytest.mark.parametrize(
    ("step_hours", "horizon", "rows", "lags"),
    [
        (0.25, 16, 2000, (96, 672)),
        (1.0, 6, 200, (24,)),
        (1.0, 30, 500, (48, 168)),
        (24.0, 8, 500, (14,)),
        (7.0, 2, 500, (24,)),
        (0.7, 2, 500, (240,)),
    ],
)
def test_seasons_are_whole_known_and_seen_twice(step_hours, horizon, rows, lags):
    assert seasons(step_hours, horizon, rows) == lags
