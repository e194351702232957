from __future__ import annotations

import pytest

from ztom.stimuli.batches import batches


def test_every_item_is_in_one_batch_in_order() -> None:
    assert list(batches([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]
    assert list(batches(range(4), 4)) == [range(4)]
    assert list(batches(("a",), 100)) == [("a",)]
    assert list(batches([], 3)) == []


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_of_nothing_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        batches([1], size)
