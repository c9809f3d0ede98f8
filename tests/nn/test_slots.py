import pytest

from ngpt_lab.errors import InputError
from ngpt_lab.nn import Dims

SIZES = {"vocab_size": 17, "d_model": 12, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_head": 6, "d_ff": 20}


@pytest.mark.parametrize("name", SIZES)
def test_a_size_below_one_is_refused_by_name(name):
    with pytest.raises(InputError, match=rf"dims\.{name} is 0: it must be at least 1"):
        Dims(**SIZES | {name: 0})


def test_query_heads_that_do_not_share_the_key_heads_evenly_are_refused():
    with pytest.raises(InputError, match=r"dims\.n_heads \(4\) is not a multiple of dims\.n_kv_heads \(3\)"):
        Dims(**SIZES | {"n_kv_heads": 3})


def test_a_head_may_be_wider_than_its_share_of_the_stream():
    assert Dims(**SIZES).n_heads * Dims(**SIZES).d_head != Dims(**SIZES).d_model
