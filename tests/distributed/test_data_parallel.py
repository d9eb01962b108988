"""Equal global batches give equal weights, however many workers share them."""

import numpy as np
import pytest

pytestmark = pytest.mark.xdist_group("programs")

# `test_model_parallel.py` has four workers at every commit.
WORKERS = [2, pytest.param(4, marks=pytest.mark.slow)]
SCENARIOS = ["plain", "accumulated", "small_buckets", "gathered", "dense"]


def weights(arrays: dict[str, np.ndarray], scenario: str) -> list[np.ndarray]:
    prefix = f"{scenario}/weight_"
    return [arrays[name] for name in sorted(arrays) if name.startswith(prefix)]


def largest_difference(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    assert len(a) == len(b) > 0
    return max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("workers", WORKERS)
def test_fifty_steps_on_n_workers_equal_one_worker(run_program, workers, scenario):
    (alone,), several = run_program("data_parallel", 1), run_program("data_parallel", workers)
    # Accumulation draws other micro-batches; with one worker the reducer has nothing to do.
    reference = scenario if scenario == "accumulated" else "plain"
    assert largest_difference(weights(alone, reference), weights(several[0], scenario)) < 1e-5
    np.testing.assert_allclose(several[0][f"{scenario}/losses"], alone[f"{reference}/losses"], atol=1e-5)


@pytest.mark.parametrize("scenario", ["weighted", "weighted_accumulated"])
@pytest.mark.parametrize("workers", WORKERS)
def test_losses_with_weights_of_their_own_are_those_of_one_worker(run_program, workers, scenario):
    """Each worker's mean would be another loss: pixels, slots and rows are shared unevenly."""
    (alone,), several = run_program("data_parallel", 1), run_program("data_parallel", workers)
    assert largest_difference(weights(alone, scenario), weights(several[0], scenario)) < 1e-5
    np.testing.assert_allclose(several[0][f"{scenario}/losses"], alone[f"{scenario}/losses"], atol=1e-5)


@pytest.mark.parametrize("scenario", [*SCENARIOS, "float16", "int8", "weighted"])
@pytest.mark.parametrize("workers", WORKERS)
def test_all_ranks_have_bit_equal_weights(run_program, workers, scenario):
    ranks = run_program("data_parallel", workers)
    for other in ranks[1:]:
        assert largest_difference(weights(ranks[0], scenario), weights(other, scenario)) == 0


@pytest.mark.parametrize("workers", WORKERS)
def test_evaluation_is_exact_with_uneven_last_batches(run_program, workers):
    (alone,), several = run_program("data_parallel", 1), run_program("data_parallel", workers)
    for rank in several:
        np.testing.assert_allclose(rank["plain/evaluations"], alone["plain/evaluations"], atol=1e-5)
    assert (alone["plain/evaluations"][:, 2] == 100).all()


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize(("wire", "tolerance"), [("float16", 0.01), ("int8", 0.03)])
def test_a_short_wire_format_stays_close(run_program, workers, wire, tolerance):
    (alone,), several = run_program("data_parallel", 1), run_program("data_parallel", workers)
    losses = several[0][f"{wire}/losses"]
    np.testing.assert_allclose(losses, alone["plain/losses"], rtol=tolerance)
    assert not np.array_equal(losses, several[0]["plain/losses"])


@pytest.mark.parametrize("workers", WORKERS)
def test_a_reduction_that_sums_nothing_is_noticed(run_program, workers):
    (alone,), several = run_program("data_parallel", 1), run_program("data_parallel", workers)
    assert largest_difference(weights(alone, "plain"), weights(several[0], "broken")) > 1e-3
    assert largest_difference(weights(several[0], "broken"), weights(several[1], "broken")) > 1e-3
