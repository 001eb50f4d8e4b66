import numpy as np
import pytest

from isthmus.data.images import ENCODINGS, mirror_partners, valid_pixels


def test_left_and_right_points_are_partners_and_others_their_own() -> None:
    names = ("left_eye", "chin", "right_eye_outer", "right_eye", "left_eye_outer", "leftover")
    partners = mirror_partners(names)
    assert partners == (3, 1, 4, 0, 2, 5)
    assert [partners[each] for each in partners] == list(range(6))
    assert mirror_partners(()) == ()


@pytest.mark.parametrize(("lonely", "missing"), [("left_ear", "right_ear"), ("right_ear", "left_ear")])
def test_a_point_of_one_side_only_is_an_error(lonely: str, missing: str) -> None:
    with pytest.raises(ValueError, match=f"expected a partner '{missing}' of '{lonely}' among the points, found none"):
        mirror_partners(("nose", lonely))


def test_a_point_is_valid_where_all_three_numbers_are_there() -> None:
    label = np.float32([[[0, 0, 0], [np.nan] * 3], [[0.5, 0.5, np.nan], [0.5, np.inf, 0]]])
    assert valid_pixels("keypoints", label).tolist() == [[True, False], [False, False]]
    blank = np.full((4, 3), ENCODINGS["keypoints"].invalid, ENCODINGS["keypoints"].dtype)
    assert not valid_pixels("keypoints", blank).any()
