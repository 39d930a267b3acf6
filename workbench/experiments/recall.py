"""Which pairs of a list are in the memory of a trained network, at which step? Read off its trace, without the network.

References:
    Arora et al. (2023), Zoology: Measuring and Improving Recall in Efficient Language Models, arXiv:2312.04927.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from workbench.data.recall import ListBatch, Lists
from workbench.models.language import LanguageModel, LanguageModelConfig
from workbench.models.layouts import GatedDeltaStackConfig, StackConfig, TitansStackConfig, XLSTMShape, XLSTMStackConfig
from workbench.runs.folder import Run
from workbench.shapes import Tensor
from workbench.trace.attention import effective_attention, memory_at
from workbench.trace.record import record
from workbench.trace.store import Trace
from workbench.training.fit import FitParams, fit

Network = Literal["mLSTM", "Gated DeltaNet", "Titans"]
CELL = "stack.blocks.0.cell"
KEYS, VALUES = 64, 64
FIRST = 4  # pairs of the first lesson: longer lists are learned from there, and hardly from nothing


def stack(network: Network, size: int) -> StackConfig:
    """One block with one memory of size x size."""
    if network == "mLSTM":
        return XLSTMStackConfig(width=size, layers=1, heads=1, slstm_at=(), shape=XLSTMShape(inner=size))
    one = {"width": size, "layers": 1, "heads": 1, "mlp_factor": 2.0}
    if network == "Titans":
        return TitansStackConfig(**one)
    return GatedDeltaStackConfig(**one, head_size=size, expand_v=1.0)


def train(
    network: Network, params: FitParams, *, size: int, pairs: int, rows: int, seed: int, run: Run | None = None
) -> LanguageModel:
    """Train on short lists, then on lists of `pairs`; with a run, progress is kept there.

    Args:
        network: which memory.
        params: of each of the two lessons.
        size: of keys and values.
        pairs: of the second lesson.
        rows: lists of each lesson.
        seed: of weights, lists and their order.
        run: where progress is kept.
    """
    model = LanguageModelConfig(vocabulary=KEYS + VALUES, stack=stack(network, size)).build(seed)
    for lesson in sorted({min(FIRST, pairs), pairs}):
        learn, check = (
            Lists(count, lesson, keys=KEYS, values=VALUES, seed=2 * seed + odd) for count, odd in ((rows, 0), (256, 1))
        )
        label = f"{network}, {lesson} pairs"
        folder = None if run is None else Path(run.checkpoints) / label.replace(", ", "-").replace(" ", "-")
        fit(model, loss, learn, check, params, seed=seed, folder=folder, label=label)
    return model


def loss(model: LanguageModel, batch: ListBatch) -> Tensor:
    """Cross entropy of the answers, at the questions alone."""
    return F.cross_entropy(answers(model, batch).flatten(0, 1), batch.answers.flatten())


def answers(model: LanguageModel, batch: ListBatch) -> Tensor:
    """Logits of the value tokens at the questions (B, P, values)."""
    logits, _ = model(batch.tokens)
    return logits[:, -batch.answers.shape[1] :, KEYS:]


def look(model: LanguageModel, lists: Lists) -> tuple[Trace, np.ndarray]:
    """Trace every list, and return whether the network answers for each pair, in the order of the list (B, P)."""
    model.eval()
    batch = lists[torch.arange(len(lists))]
    with torch.no_grad(), record(model) as trace:
        right = answers(model, batch).argmax(-1) == batch.answers
    return trace, torch.zeros_like(right).scatter(1, batch.asked, right).numpy()


def reading(trace: Trace, lists: Lists) -> np.ndarray:
    """Where an answer is read from: the mean weight of the steps 0, 1, 2 and 3 behind the key of the pair asked (4,).

    A convolution sees some steps at once, so that a network may write a pair when its value comes, or later.
    """
    pairs = lists.pairs
    weights = torch.from_numpy(effective_attention(trace, CELL)[:, 0, 2 * pairs :])  # (B, P, T)
    steps = 2 * lists.data.asked[..., None] + torch.arange(4)
    return weights.gather(2, steps).mean((0, 1)).numpy()


def held(trace: Trace, lists: Lists, behind: int, steps: Iterable[int] | None = None) -> np.ndarray:
    """Whether the memory holds each pair at each step (B, P, steps), from the trace alone.

    The memory behind a step is asked with the key under which a pair was written. The pair is held if, of all values
    that the list wrote, the answer points most nearly in the direction of its own (or of one with the same token).

    Args:
        trace: what `look` returned for the lists.
        lists: what the network read.
        behind: how many steps behind its key token a pair is written, see `reading`.
        steps: which ones; None is all of them.
    """
    key, value = (torch.from_numpy(trace.read(f"{CELL}.{name}")[:, 0]).double() for name in ("key", "value"))
    at = 2 * torch.arange(lists.pairs) + behind
    key, value = key[:, at], F.normalize(value[:, at], dim=-1)  # (B, P, K), (B, P, V)
    tokens, found = lists.values, []
    for step in range(trace.steps) if steps is None else steps:
        memory = torch.from_numpy(memory_at(trace, CELL, step)[:, 0]).double()
        nearest = torch.einsum("bpk,bkv,bnv->bpn", key, memory, value).argmax(-1)
        found.append(tokens.gather(1, nearest) == tokens)
    return torch.stack(found, -1).numpy()


def by_age(trace: Trace, lists: Lists, behind: int) -> np.ndarray:
    """Whether each pair is held when the last has been written (B, P), the newest first."""
    return held(trace, lists, behind, [2 * (lists.pairs - 1) + behind])[:, ::-1, 0]


def key_overlap(trace: Trace, pairs: int, behind: int) -> float:
    """Mean square of the cosine of two keys of a list, times the size of a key: 1 for random directions."""
    key = torch.from_numpy(trace.read(f"{CELL}.key")[:, 0]).double()[:, 2 * torch.arange(pairs) + behind]
    cosine = F.normalize(key, dim=-1) @ F.normalize(key, dim=-1).mT
    off = ~torch.eye(pairs, dtype=torch.bool)
    return float(cosine[:, off].square().mean() * key.shape[-1])


def question_fit(trace: Trace, lists: Lists, behind: int) -> float:
    """Mean cosine of the query of a question and the key under which its pair was written."""
    query, key = (torch.from_numpy(trace.read(f"{CELL}.{name}")[:, 0]).double() for name in ("query", "key"))
    steps = (2 * lists.data.asked + behind)[..., None].expand(-1, -1, key.shape[-1])
    return float(F.cosine_similarity(query[:, 2 * lists.pairs :], key.gather(1, steps), dim=-1).mean())
