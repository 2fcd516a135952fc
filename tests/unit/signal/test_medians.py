import numpy as np
import pytest

from mersuite.signal.medians import row_medians


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("num_values", [1, 2, 5, 6, 1000, 1001])
def test_row_medians_are_those_of_numpy(num_values, dtype):
    values = np.random.default_rng(0).standard_normal((7, num_values)).astype(dtype)
    values[1] = 3.0
    np.testing.assert_allclose(row_medians(values), np.median(values, axis=1), rtol=1e-6)
    assert row_medians(values).dtype == dtype
