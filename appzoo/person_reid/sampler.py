"""Batches of P identities with K images each."""

from __future__ import annotations

import numpy as np

from easytransfer.errors import ConfigError

# What tells the random numbers of an epoch's identities from those of the unlabelled rows.
_IDENTITIES, _UNLABELLED = 0, 1


class PkSampler:
    """Plans epochs in which every batch has P identities with K images each, and every labelled image comes.

    The images of an identity are put into random groups of K, the last one filled with others of the same identity. Of
    the identities with most groups left, P give one each to a batch, in random order; an epoch ends when no group is
    left, which takes max(groups / P rounded up, the most groups of an identity) batches. In batches for which too few
    identities have groups left, others give further random images. Hermans et al., arXiv 1703.07737, section 2.

    Unlabelled rows take their turns in random order, which goes on over epochs.

    Args:
        identities: Identity of every row of the table, int [rows]; -1 = unlabelled.
        images: K.
        seed: Seed of the plans.
        usable: Which rows are drawn at all, bool [rows]; all when None.
        unlabelled: Unlabelled rows in every `batch_size` rows, behind the labelled ones.
        batch_size: Rows that `unlabelled` is counted for.

    Raises:
        ConfigError: There are unlabelled rows to be drawn, and the table has none.

    Example:
        >>> PkSampler(np.repeat([3, 5, 8], 4), images=2, seed=0).plan(0, size=4, workers=1)[0].shape
        (4,)
    """

    def __init__(
        self,
        identities: np.ndarray,
        images: int,
        seed: int,
        usable: np.ndarray | None = None,
        *,
        unlabelled: int = 0,
        batch_size: int = 1,
    ) -> None:
        usable = np.ones(len(identities), bool) if usable is None else usable
        labelled = np.flatnonzero(usable & (identities >= 0))
        order = labelled[np.argsort(identities[labelled], kind="stable")]
        _, starts = np.unique(identities[order], return_index=True)
        self.rows_of = np.split(order, starts[1:]) if len(order) else []
        self.images, self.seed = images, seed % 2**63
        self.groups = np.array([-(-len(rows) // images) for rows in self.rows_of], np.int64)
        self._unlabelled, self._batch_size = unlabelled, batch_size
        self._spare = np.flatnonzero(usable & (identities < 0))
        if unlabelled and not len(self._spare):
            raise ConfigError(
                f"model.unlabelled_per_batch={unlabelled}, and the training table has no unlabelled row",
                fix="set it to 0, or give rows with the identity -1",
            )

    def steps(self, size: int, workers: int) -> int:
        """Returns the number of batches of an epoch; see `Sampler.steps`.

        Raises:
            ConfigError: A batch cannot be made of whole identities, or there are fewer of them.
        """
        count = workers * self._form(size, workers)[0]
        return max(-(-int(self.groups.sum()) // count), int(self.groups.max()))

    def plan(self, epoch: int, size: int, workers: int) -> list[np.ndarray]:
        """Returns the rows of the batches; see `Sampler.plan`. Identities are whole on each worker.

        The same identities and images make the batches of any number of workers.
        """
        own, spare = self._form(size, workers)
        labelled = self._labelled(epoch, own * workers)
        first = epoch * len(labelled) * spare * workers
        further = self._turns(first, len(labelled) * spare * workers).reshape(len(labelled), workers, spare)
        found = []
        for rows, others in zip(labelled, further, strict=True):
            shares = np.concatenate([rows.reshape(workers, own * self.images), others], axis=1)
            # Worker r takes the places r, r + workers, ...
            found.append(shares.T.ravel())
        return found

    def _form(self, size: int, workers: int) -> tuple[int, int]:
        """Returns the identities and the unlabelled rows of the batch of one worker."""
        rows, uneven = divmod(size, workers)
        spare, rest = divmod(rows * self._unlabelled, self._batch_size)
        own, left = divmod(rows - spare, self.images)
        if uneven or rest or left or own < 1:
            raise ConfigError(
                f"a batch of {size} rows on {workers} workers has no whole identities of {self.images} images each",
                fix="choose batch_size and the number of workers so that it has",
            )
        if own * workers > len(self.rows_of):
            raise ConfigError(
                f"a batch has {own * workers} identities, and the training table only {len(self.rows_of)}",
                fix="lower train.batch_size, or raise model.images_per_identity",
            )
        return own, spare

    def _labelled(self, epoch: int, count: int) -> np.ndarray:
        """Returns the rows of the batches of an epoch, int [batches, count * images]."""
        random = np.random.Generator(np.random.PCG64([self.seed, _IDENTITIES, epoch]))
        waiting = [self._grouped(rows, random) for rows in self.rows_of]
        left = self.groups.copy()
        # Its own number for each turn of each identity: which come together differs from turn to turn.
        ranks = [random.random(int(self.groups.max()) + 1) for _ in self.rows_of]
        batches = []
        while left.any():
            tie = np.array([each[n] for each, n in zip(ranks, left, strict=True)])
            chosen = np.lexsort([tie, -left])[:count]
            groups = [waiting[i][left[i] - 1] if left[i] else self._further(i, random) for i in chosen]
            left[chosen] = np.maximum(left[chosen] - 1, 0)
            batches.append(np.concatenate(groups))
        return np.stack(batches)

    def _grouped(self, rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Returns the rows of an identity in random groups, int [groups, images]."""
        order = random.permutation(rows)
        missing = -len(order) % self.images
        # The first ones are in other groups than the last, unless there is only one.
        return np.concatenate([order, np.resize(order, missing)]).reshape(-1, self.images)

    def _further(self, identity: int, random: np.random.Generator) -> np.ndarray:
        return self._grouped(self.rows_of[identity], random)[0]

    def _turns(self, first: int, count: int) -> np.ndarray:
        """Returns the unlabelled rows whose turn it is, from number `first` on, int [count]."""
        if not count:
            return np.zeros(0, np.int64)
        rounds = range(first // len(self._spare), (first + count - 1) // len(self._spare) + 1)
        orders = [
            np.random.Generator(np.random.PCG64([self.seed, _UNLABELLED, number])).permutation(self._spare)
            for number in rounds
        ]
        return np.concatenate(orders)[first - rounds[0] * len(self._spare) :][:count]
