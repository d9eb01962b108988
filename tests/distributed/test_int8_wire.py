"""The int8 wire against its definition in NumPy; what it leaves unsent is neither lost nor spoilt."""

import numpy as np
import programs
import pytest
import tensorflow as tf

from easytransfer.distributed.int8_wire import BLOCK, pack, unpack

pytestmark = pytest.mark.xdist_group("programs")

WORKERS = [2, pytest.param(4, marks=pytest.mark.slow)]
SECOND = programs.INT8_SIZES[1]


def quantized(blocks: np.ndarray) -> np.ndarray:
    """What arrives of float32 [blocks, BLOCK]."""
    scales = np.abs(blocks).max(1, keepdims=True) / np.float32(127)
    return np.round(blocks / np.where(scales == 0, np.float32(1), scales)) * scales


def expected(workers: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns sums [steps, n] and residuals [ranks, steps, n] of `programs.int8_gradients`."""
    # A bucket begins with the last variable.
    given = np.stack([np.roll(programs.int8_gradients(rank), SECOND, axis=1) for rank in range(workers)])
    length, own = given.shape[2], -(-given.shape[2] // (workers * BLOCK))
    residual = np.zeros([workers, length], np.float32)
    sums, kept = [], []
    for step in range(given.shape[1]):
        padded = np.zeros([workers, workers * own * BLOCK], np.float32)
        padded[:, :length] = given[:, step] + residual
        blocks = padded.reshape(workers, -1, BLOCK)
        bad = ~np.isfinite(blocks).all(2, keepdims=True)
        sent = np.where(bad, np.nan, np.stack([quantized(each) for each in blocks]))
        piece = sent.sum(0)
        total = quantized(piece)
        rest = blocks - sent
        for rank in range(workers):
            rows = slice(rank * own, (rank + 1) * own)
            rest[rank, rows] += (piece - total)[rows]
        rest = rest.reshape(workers, -1)[:, :length]
        residual = np.where(np.isfinite(rest), rest, residual)
        sums.append(total.reshape(-1)[:length])
        kept.append(residual)
    return np.roll(np.stack(sums), -SECOND, axis=1), np.roll(np.stack(kept, 1), -SECOND, axis=2)


def test_quantization_is_rounding_to_127_levels_per_block():
    blocks = np.random.default_rng(1).standard_normal([5, BLOCK]).astype(np.float32) * [[1e-6], [1], [1e6], [0], [3]]
    blocks = blocks.astype(np.float32)
    packed = pack(tf.constant(blocks))
    assert packed.dtype == tf.int8 and packed.shape == [5, BLOCK + 4]
    np.testing.assert_allclose(unpack(packed), quantized(blocks), rtol=1e-6)
    assert (np.abs(unpack(packed) - blocks) <= np.abs(blocks).max(1, keepdims=True) / 254 * 1.0001).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_block_with_a_number_that_is_not_finite_arrives_as_nan(bad):
    blocks = np.ones([2, BLOCK], np.float32)
    blocks[0, 7] = bad
    found = unpack(pack(tf.constant(blocks))).numpy()
    assert np.isnan(found[0]).all() and (found[1] == 1).all()


@pytest.mark.parametrize("workers", WORKERS)
def test_sums_and_residuals_follow_the_definition(run_program, workers):
    ranks = run_program("int8_wire", workers)
    sums, residuals = expected(workers)
    assert np.isnan(sums[3]).any() and np.isfinite(sums[[0, 1, 2, 4, 5]]).all()
    for rank, found in enumerate(ranks):
        # A number half-way between two levels may be rounded either way.
        np.testing.assert_allclose(found["sums"], sums, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["residuals"], residuals[rank], atol=1e-5)
        assert np.array_equal(found["sums"], ranks[0]["sums"], equal_nan=True)


@pytest.mark.parametrize("workers", WORKERS)
def test_nothing_is_lost_over_many_steps(run_program, workers):
    ranks = run_program("int8_wire", workers)
    given = np.stack([programs.int8_gradients(rank) for rank in range(workers)])[:, :3].sum((0, 1), np.float64)
    arrived = ranks[0]["sums"][:3].sum(0, np.float64) + sum(rank["residuals"][2] for rank in ranks)
    np.testing.assert_allclose(arrived, given, atol=1e-5)
    # Without the residuals it would be lost: some number is off by more than a hundred times that.
    assert np.abs(ranks[0]["sums"][:3].sum(0, np.float64) - given).max() > 1e-3


@pytest.mark.parametrize("workers", WORKERS)
def test_a_checkpoint_has_the_residuals_of_all_ranks(run_program, workers):
    ranks = run_program("int8_wire", workers)
    for found in ranks:
        np.testing.assert_allclose(found["joined"], sum(rank["residuals"][-1] for rank in ranks), atol=1e-5)
    from easytransfer.train import checkpoint

    training = checkpoint.load(ranks.folder / "unbroken" / "model.ckpt-25").training
    stored = [array for name, array in training.items() if name.startswith("residual/")]
    assert len(stored) == 5 and any(np.abs(array).max() > 0 for array in stored)


@pytest.mark.parametrize("workers", WORKERS)
def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(run_program, workers):
    found = run_program("int8_wire", workers)[0]
    names = [name.removeprefix("unbroken/") for name in found if name.startswith("unbroken/weight_")]
    assert len(names) == 5
    for name in names:
        assert np.array_equal(found[f"unbroken/{name}"], found[f"stopped/{name}"]), name


def test_one_worker_takes_over_and_says_what_is_dropped(run_program, capsys):
    folder = run_program("int8_wire", 2).folder / "stopped"
    settings = {"save_checkpoint_steps": 25, "lr_decay": "constant", "warmup_ratio": 0.0}
    found = programs.run_training(programs.ONE_WORKER, steps=60, folder=folder, **settings)
    assert len(found["losses"]) == 10
    assert "wire_dtype=int8" in capsys.readouterr().err
