"""Two workers train what one does: features on the same batches of persons, both players of AS-GAN on the same rows."""

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("programs")]


@pytest.mark.parametrize(("program", "steps"), [("person_reid_baseline", 4), ("person_reid_as_gan", 8)])
def test_two_workers_equal_one(run_program, program, steps):
    (alone,), together = run_program(program, 1), run_program(program, 2)
    assert len(alone) > 20
    for found in together:
        assert found.keys() == alone.keys() and found["steps"] == alone["steps"] == steps
        for name, value in alone.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)
