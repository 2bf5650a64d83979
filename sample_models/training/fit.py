"""The training loop: AdamW with a one-cycle learning rate, on one thread, from a fixed seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from training.dataset import Part

_BATCH = 64


def fit(make: Callable[[], nn.Module], train: Part, *, seed: int, epochs: int, peak_rate: float) -> nn.Module:
    """Make a network and train it; returns it in evaluation mode.

    Args:
        make: makes the untrained network; called after seeding.
        train: the training data.
        seed: seeds the initial weights and the order of the samples.
        epochs: passes over the training data.
        peak_rate: the highest learning rate.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    network = make()
    images, labels = torch.from_numpy(train.images), torch.from_numpy(train.labels)
    steps = epochs * (len(labels) // _BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=peak_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_rate, total_steps=steps, pct_start=0.2)
    network.train()
    for chosen in _batches(len(labels), epochs, seed):
        loss = nn.functional.cross_entropy(network(images[chosen]), labels[chosen], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def _batches(count: int, epochs: int, seed: int) -> Iterator[torch.Tensor]:
    """Yield the indices of one batch after the other; the last, smaller batch of an epoch is left out."""
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(count)
        for start in range(0, count - _BATCH + 1, _BATCH):
            yield torch.from_numpy(order[start : start + _BATCH])
