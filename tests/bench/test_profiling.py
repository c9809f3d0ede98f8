"""Memory is counted to the byte, and kernels by their names."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ngpt_lab.bench.footprint import saved_for_backward
from ngpt_lab.bench.profiling import KINDS, REST, kernel_shares, kind_of, peak_growth
from ngpt_lab.data.windows import Batch

CPU = torch.device("cpu")


def test_the_peak_is_of_what_lives_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    a = torch.zeros(1000)

    def call() -> None:
        b = a + 1
        c = b * 2
        del b
        d = c - 1
        del c, d

    assert peak_growth(CPU, call) == pytest.approx(2 * a.nbytes, abs=200)
    assert capfd.readouterr().err == ""


def test_what_is_kept_counts_once_and_without_weights_and_batch() -> None:
    module = nn.Linear(6, 5, bias=False)
    tokens = torch.ones(4, 6)

    def loss(batch: Batch) -> torch.Tensor:
        hidden = module(batch.tokens).relu()  # kept by relu's and by both factors' backward
        return (hidden * hidden).sum()

    arm = SimpleNamespace(module=module, batches=[Batch(tokens, tokens, None)], loss=loss)
    assert saved_for_backward(arm) == 4 * 5 * 4  # type: ignore[arg-type]


def test_shares_of_kernels_add_up_to_one() -> None:
    a = torch.randn(300, 300)
    shares = kernel_shares(CPU, lambda: (a @ a).softmax(dim=-1))
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["products"] > 0
    assert set(shares) == {*KINDS, REST}


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("aten::mm", "products"),
        ("aten::addmm", "products"),
        ("nvjet_tst_128x256_64x4_1x2_h_bz_coopA_NNT", "products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64", "products"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("void flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64>>", "attention"),
        ("triton_red_fused_mul_sum_3", "compiled"),
        ("aten::_fused_adamw_", "optimizer"),
        ("void at::native::multi_tensor_apply_kernel<...FusedAdamMathFunctor>", "optimizer"),
        ("aten::mul", REST),
    ],
)
def test_kernels_go_by_their_names(kernel: str, kind: str) -> None:
    assert kind_of(kernel) == kind
