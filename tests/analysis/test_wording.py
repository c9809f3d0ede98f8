import pytest

from ngpt_lab.analysis.wording import duration, short_key


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.25, "0.2 s"),
        (59.4, "59.4 s"),
        (59.7, "1 min 0 s"),
        (3599.9, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (47 * 3600, "47 h 0 min"),
        (51 * 3600, "2 days 3 h"),
    ],
)
def test_a_time_has_two_units_at_the_most(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_a_key_is_as_short_as_the_others_let_it_be() -> None:
    keys = ["a.init_args.lr", "b.init_args.lr", "a.init_args.decay", "lr"]
    assert [short_key(key, keys) for key in keys] == ["a.lr", "b.lr", "decay", "lr"]
