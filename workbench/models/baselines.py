"""What every network is measured against: the last value, the season before, and ridge regression."""

import torch

from workbench.data.windows import Batch, Windows
from workbench.shapes import Float, Tensor


def last_value(batch: Batch) -> Float[Tensor, "B P"]:
    """The last value of the past, for every step ahead."""
    return batch.past[:, -1:, 0].expand(-1, batch.known.shape[1])


def seasonal_naive(batch: Batch, seasons: int, which: int) -> Float[Tensor, "B P"]:
    """The value one season before, for season number `which` of the `seasons` that the windows know."""
    return batch.known[..., batch.known.shape[-1] - seasons + which]


PENALTIES = (1.0, 10.0, 100.0, 1e3, 1e4)


class Ridge:
    """Ridge regression of each step ahead on the past, the calendar and the seasonal lags; one for each channel.

    Args:
        horizon: steps ahead P.
        channels: series C, each with weights of its own.
        past: how many of the last values it sees.

    References:
        Hoerl and Kennard (1970), Ridge Regression, Technometrics 12(1).
    """

    def __init__(self, horizon: int, channels: int, past: int = 48) -> None:
        self.horizon, self.channels, self.past = horizon, channels, past
        self.penalty = 0.0
        self.weights = torch.zeros(0)

    def features(self, batch: Batch) -> Float[Tensor, "B P X"]:
        """Last values, what is known of the step ahead, and a constant."""
        last = batch.past[:, -self.past :, 0]
        last = last[:, None].expand(-1, self.horizon, -1)
        return torch.cat([last, batch.known, torch.ones_like(last[..., :1])], -1).double()

    def fit(self, train: Windows, valid: Windows, penalties: tuple[float, ...] = PENALTIES) -> "Ridge":
        """Solve for every penalty, and keep the one with the smallest absolute error on the validation windows."""
        moments = [self._moments(train, channel) for channel in range(self.channels)]
        best = torch.inf
        for penalty in penalties:
            weights = torch.stack([self._solve(*moment, penalty) for moment in moments])
            self.weights, kept = weights, self.weights
            error = float((self.predict(valid) - valid[torch.arange(len(valid))].target).abs().mean())
            if error < best:
                best, self.penalty = error, penalty
            else:
                self.weights = kept
        return self

    def _moments(self, train: Windows, channel: int) -> tuple[Tensor, Tensor]:
        batch = train[torch.nonzero(train.index[:, 1] == channel)[:, 0]]
        x, y = self.features(batch), batch.target.double()
        return torch.einsum("bpx,bpz->pxz", x, x), torch.einsum("bpx,bp->px", x, y)

    def _solve(self, square: Tensor, cross: Tensor, penalty: float) -> Tensor:
        eye = torch.eye(square.shape[-1], dtype=square.dtype)
        eye[-1, -1] = 0  # the constant is free
        return torch.linalg.solve(square + penalty * eye + 1e-8 * torch.eye(len(eye)), cross)

    def predict(self, windows: Windows) -> Float[Tensor, "N P"]:
        """Forecast every window, scaled."""
        batch = windows[torch.arange(len(windows))]
        return torch.einsum("bpx,bpx->bp", self.features(batch), self.weights[windows.index[:, 1]]).float()
