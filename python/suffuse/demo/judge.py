"""An independent judge of generated digits: a small classifier trained on the real ones."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suffuse.data import Pictures

FEATURES = 24


class Judge:
    """A perceptron 64-128-24-10 trained on real pictures only; it never sees the generator.

    Its features are the 24 inputs of the last GELU, each shifted and scaled to mean 0 and variance
    1 over the training pictures, so that Frechet distances do not depend on the net's own scale.
    """

    def __init__(self, train: Pictures, *, seed: int = 0, epochs: int = 40) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._body = nn.Sequential(
                nn.Flatten(), nn.Linear(64, 128), nn.GELU(), nn.Linear(128, FEATURES)
            )
            self._head = nn.Sequential(nn.GELU(), nn.Linear(FEATURES, 10))
            self._fit(train, epochs)
        with torch.no_grad():
            features = self._body(train.images)
        self._mean, self._std = features.mean(0), features.std(0)
        self._real = self.features(train.images)

    def _fit(self, train: Pictures, epochs: int) -> None:
        net = nn.Sequential(self._body, self._head)
        optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
        for _ in range(epochs):
            for rows in torch.randperm(len(train.images)).split(64):
                x = train.images[rows]
                loss = F.cross_entropy(net(x + 0.2 * torch.randn_like(x)), train.labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    @torch.no_grad()
    def accuracy(self, pictures: Pictures) -> float:
        """Share of the pictures [N, 1, 8, 8] that the classifier gives their label."""
        guess = self._head(self._body(pictures.images)).argmax(1)
        return float((guess == pictures.labels).double().mean())

    @torch.no_grad()
    def features(self, images: Tensor) -> np.ndarray:
        """[N, 1, 8, 8] -> [N, 24] float64."""
        return ((self._body(images) - self._mean) / self._std).double().numpy()

    def distance(self, images: Tensor) -> float:
        """Frechet distance of the features of `images` to those of the training pictures."""
        return frechet_distance(self._real, self.features(images))


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Frechet distance of the normal distributions fitted to the rows of a and b, [N, D].

    |mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2); Dowson & Landau 1982, used as
    FID by Heusel et al. 2017. Its value grows with small N even for equal distributions.
    """
    covariance_a, covariance_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ covariance_b @ root).clip(min=0)
    shift = a.mean(axis=0) - b.mean(axis=0)
    return float(
        shift @ shift + np.trace(covariance_a) + np.trace(covariance_b) - 2 * np.sqrt(inner).sum()
    )
