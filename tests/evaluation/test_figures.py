import numpy as np

from isthmus.evaluation import figures


def test_running_mean_stays_within_a_stage() -> None:
    values, stages = np.r_[np.zeros(60), np.ones(60)], np.array(["a"] * 60 + ["b"] * 60)
    np.testing.assert_array_equal(figures.smooth(values, stages), values)
    assert figures.smooth(np.arange(60.0), np.array(["a"] * 60))[0] == 1.0
