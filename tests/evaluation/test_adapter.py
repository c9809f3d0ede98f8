"""A decoder answers the harness's requests as the harness's own `hf` model does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from tokenizers.decoders import ByteLevel
from transformers import NemotronConfig, NemotronForCausalLM, PreTrainedTokenizerFast

from ngpt_lab.errors import InputError
from ngpt_lab.evaluation.adapter import DecoderLM
from ngpt_lab.generation.loop import generate
from ngpt_lab.hf import NGPTConfig, NGPTForCausalLM
from ngpt_lab.interop.export import export_config, export_weights
from ngpt_lab.models import NGPT, Decoder, Dims, Nemotron

LENGTH = 24
LINE = "the norm of a vector on the sphere is one"
PAIRS = [
    ("the norm of", " a vector"),
    ("the norm of ", "a vector"),
    ("the norm of", " one"),
    ("the norm of", " a"),
    ("the norm of", " the"),
    ("", "a vector"),
    ("", "</s> a vector"),
    ("<s>the norm", " of"),
    (LINE * 9, " is one"),
    ("on", " the sphere is one, and the norm of a vector"),
    ("one\n\n", "the norm"),
]
CLASSES = {
    NGPT: ("hf-ngpt", NGPTConfig, NGPTForCausalLM),
    Nemotron: ("hf-nemotron", NemotronConfig, NemotronForCausalLM),
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that puts a token before each text."""
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learned.decoder = ByteLevel()
    special, alphabet = ["<s>", "</s>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    learned.train_from_iterator([LINE], trainer)
    learned.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=learned, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="module")
def decoder(tokenizer: PreTrainedTokenizerFast) -> Decoder:
    torch.manual_seed(0)
    dims = Dims(vocab_size=len(tokenizer), d_model=24, n_layers=2, n_heads=4, n_kv_heads=2, d_head=8, d_ff=40)
    decoder = Nemotron(dims).eval()
    for parameter in decoder.parameters():
        parameter.data.mul_(6)  # a fresh one finds all tokens alike
    return decoder


@pytest.fixture(scope="module")
def ours(decoder: Decoder, tokenizer: PreTrainedTokenizerFast) -> DecoderLM:
    return DecoderLM(decoder, tokenizer, LENGTH, batch_size=3)


@pytest.fixture(scope="module")
def theirs(decoder: Decoder, tokenizer: PreTrainedTokenizerFast) -> HFLM:
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    model = NemotronForCausalLM(NemotronConfig(**{**export_config(decoder, "hf-nemotron"), **ids})).eval()
    model.load_state_dict(export_weights(decoder, "hf-nemotron"))
    return HFLM(pretrained=model, tokenizer=tokenizer, max_length=LENGTH, batch_size=3)


def requests(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [Instance(request_type=kind, doc={}, arguments=own, idx=0) for own in arguments]


def test_continuations_have_the_probabilities_that_the_hf_model_gives_them(ours: DecoderLM, theirs: HFLM):
    asked = requests("loglikelihood", *PAIRS)
    found, expected = ours.loglikelihood(asked, disable_tqdm=True), theirs.loglikelihood(asked, disable_tqdm=True)
    assert [score for score, _ in found] == pytest.approx([score for score, _ in expected], abs=1e-4)
    assert found[0] == found[1]  # a space at the end of the context is the continuation's
    assert len({round(score, 4) for score, _ in found[1:]}) == len(PAIRS) - 1
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]


def test_the_likeliest_continuation_is_told_as_such(ours: DecoderLM, theirs: HFLM):
    [said] = ours.generate_until(requests("generate_until", (LINE, {"until": [], "max_gen_toks": 1})))
    [token] = ours.tokenizer.encode(said, add_special_tokens=False)
    asked = [(None, ours.tok_encode(LINE), own) for own in ([token], [(token + 1) % 300])]
    assert [greedy for _, greedy in ours._loglikelihood_tokens(asked)] == [True, False]
    assert [greedy for _, greedy in theirs._loglikelihood_tokens(asked)] == [True, False]


def test_whole_texts_have_the_probabilities_that_the_hf_model_gives_them(ours: DecoderLM, theirs: HFLM):
    asked = requests("loglikelihood_rolling", ("",), ("one",), (LINE,), (LINE * 9,), ("<s>" + LINE,))
    expected = theirs.loglikelihood_rolling(asked, disable_tqdm=True)
    assert ours.loglikelihood_rolling(asked, disable_tqdm=True) == pytest.approx(expected, abs=1e-3, rel=1e-6)
    assert len(ours.tok_encode(LINE * 9)) > 3 * LENGTH


def test_texts_go_on_as_the_hf_model_goes_on(ours: DecoderLM, theirs: HFLM):
    contexts = ["one", LINE, LINE * 9, "the norm of a vector"]
    asked = [(context, {"until": stops, "max_gen_toks": 10}) for context in contexts for stops in ([], ["e", "n"])]
    found, expected = (lm.generate_until(requests("generate_until", *asked)) for lm in (ours, theirs))
    assert found == expected
    assert len(set(found)) > 4


def test_every_id_that_ends_a_text_ends_it_as_it_does_for_the_hf_model(
    decoder: Decoder, tokenizer: PreTrainedTokenizerFast, ours: DecoderLM, theirs: HFLM, monkeypatch: pytest.MonkeyPatch
):
    asked = [(context, {"until": [], "max_gen_toks": 10}) for context in ("one", LINE, "the norm of a vector")]
    endless = ours.generate_until(requests("generate_until", *asked))
    new = [int(ids) for ids in generate(decoder, torch.tensor([ours.tok_encode("one")]), max_new_tokens=3)]
    ends = [1, new[2]]
    monkeypatch.setattr(theirs.model.generation_config, "eos_token_id", ends)
    found = DecoderLM(decoder, tokenizer, LENGTH, 3, stop=ends).generate_until(requests("generate_until", *asked))
    assert found == theirs.generate_until(requests("generate_until", *asked))
    assert found[0] == tokenizer.decode(new) != endless[0]


@pytest.mark.parametrize("cls", CLASSES)
def test_of_weights_in_bfloat16_the_probabilities_are_those_of_the_hf_model_with_softmax_dtype_float32(
    cls: type[Decoder], tokenizer: PreTrainedTokenizerFast
):
    torch.manual_seed(0)
    dims = Dims(vocab_size=len(tokenizer), d_model=24, n_layers=2, n_heads=4, n_kv_heads=2, d_head=8, d_ff=40)
    decoder = cls(dims, attention="sdpa").eval()
    for name, parameter in decoder.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if name.endswith("alpha.stored") else torch.bfloat16)
    kind, config, model_class = CLASSES[cls]
    model = model_class(config(**export_config(decoder, kind)))
    model.load_state_dict(export_weights(decoder, kind), assign=True)
    asked = requests("loglikelihood", *PAIRS)
    theirs = [
        HFLM(pretrained=model.eval(), tokenizer=tokenizer, max_length=LENGTH, batch_size=3, softmax_dtype=dtype)
        for dtype in ("float32", None)
    ]
    expected, narrow = ([score for score, _ in lm.loglikelihood(asked, disable_tqdm=True)] for lm in theirs)
    found = [score for score, _ in DecoderLM(decoder, tokenizer, LENGTH, 3).loglikelihood(asked, disable_tqdm=True)]
    off, far = (max(abs(a - b) for a, b in zip(found, other, strict=True)) for other in (expected, narrow))
    assert off < 1e-3
    assert far > 1e-2


def test_what_is_cut_is_counted(decoder: Decoder, tokenizer: PreTrainedTokenizerFast):
    lm = DecoderLM(decoder, tokenizer, LENGTH, batch_size=1)
    lm.loglikelihood(requests("loglikelihood", *PAIRS), disable_tqdm=True)
    assert lm.cut == 1


def test_requests_that_do_not_fit_are_refused(ours: DecoderLM, decoder: Decoder):
    with pytest.raises(InputError, match="tokens, where the decoder reads 1 to 24"):
        ours.loglikelihood(requests("loglikelihood", ("one", LINE * 9)), disable_tqdm=True)
    with pytest.raises(InputError, match="24 new tokens, and the decoder reads 24"):
        ours.generate_until(requests("generate_until", ("one", {"max_gen_toks": LENGTH})))
    with pytest.raises(InputError, match="generate with num_beams, which is not known here"):
        ours.generate_until(requests("generate_until", ("one", {"max_gen_toks": 2, "num_beams": 2})))
    nameless = PreTrainedTokenizerFast(tokenizer_object=ours.tokenizer.backend_tokenizer)
    with pytest.raises(InputError, match="no token that begins or ends a text"):
        DecoderLM(decoder, nameless, LENGTH, 1).loglikelihood(requests("loglikelihood", ("", "one")), disable_tqdm=True)
