import pandas as pd
import pytest

from ngpt_lab.analysis.trials import at_edge


@pytest.mark.parametrize(
    ("value", "tried", "edge"),
    [
        (0.1, [0.1, 0.2, 0.4], True),
        (0.1 + 0.2, [0.1, 0.2, 0.3], True),
        (0.2, [0.1, 0.2, 0.4], False),
        (0.1, [0.1, 0.1], False),
        ("0.5", ["1/n_layers", "0.05", "0.5"], True),
        ("1/n_layers", ["1/n_layers", "0.05", "0.5"], False),
        (True, [True, False], False),
        ("True", ["True", "False"], False),
        (None, [0.1, 0.2], False),
    ],
)
def test_only_a_number_that_is_the_least_or_most_of_several_lies_at_the_edge(
    value: object, tried: list[object], edge: bool
) -> None:
    assert at_edge(value, pd.Series(tried)) is edge
