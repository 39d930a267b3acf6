"""Key-value recall: a list of pairs is read once, then every key is asked for its value.

References:
    Arora et al. (2023), Zoology: Measuring and Improving Recall in Efficient Language Models, arXiv:2312.04927,
    for the task; here all pairs come first, every key is asked once, and nothing stands between.
"""

from typing import NamedTuple

import torch

from workbench.shapes import Int, Tensor


class ListBatch(NamedTuple):
    """Lists side by side."""

    tokens: Tensor  # key, value, key, value ..., then the keys once more, in another order (B, 3P)
    answers: Tensor  # value tokens that belong to the keys asked, counted from 0 (B, P)
    asked: Tensor  # number of the pair that is asked for (B, P)


class Lists:
    """Random lists of pairs: keys without repetition, values with.

    Args:
        rows: lists N.
        pairs: pairs P of each.
        keys, values: how many tokens there are of each; key tokens are 0 ... keys - 1, value tokens follow.
        seed: of everything drawn.
    """

    def __init__(self, rows: int, pairs: int, *, keys: int = 64, values: int = 64, seed: int = 0) -> None:
        if not 1 <= pairs <= keys:
            raise ValueError(f"pairs={pairs} with keys={keys}: a list needs a pair, and each pair a key of its own.")
        g = torch.Generator().manual_seed(seed)
        key = torch.rand(rows, keys, generator=g).argsort(1)[:, :pairs]
        value = torch.randint(values, (rows, pairs), generator=g)
        asked = torch.rand(rows, pairs, generator=g).argsort(1)
        listed = torch.stack([key, keys + value], -1).flatten(1)
        self.pairs, self.keys = pairs, keys
        self.data = ListBatch(torch.cat([listed, key.gather(1, asked)], 1), value.gather(1, asked), asked)

    def __len__(self) -> int:
        return len(self.data.tokens)

    def __getitem__(self, which: Tensor) -> ListBatch:
        return ListBatch(*(part[which] for part in self.data))

    @property
    def values(self) -> Int[Tensor, "N P"]:
        """Value token of each pair, in the order of the list."""
        return self.data.tokens[:, 1 : 2 * self.pairs : 2]

    def words(self, row: int) -> list[str]:
        """A list as a person reads it, one word for each step: k5 17 k9 3 ... k9? k5?"""
        first = self.data.tokens[row].tolist()
        listed, questions = first[: 2 * self.pairs], first[2 * self.pairs :]
        return [f"k{t}" if t < self.keys else f"{t - self.keys}" for t in listed] + [f"k{t}?" for t in questions]
