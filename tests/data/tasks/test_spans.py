"""Questions about contexts."""

import pytest
import torch

from ngpt_lab.data import SpanData, TableFiles, TokenizerFolder
from ngpt_lab.errors import InputError

CONTEXT = "The largest city of the country is Paris. Its river is the Seine, \u00e9t\u00e9 comme hiver, and it is wide."


def row(answer, question="Which?", context=CONTEXT):
    return {"question": question, "context": context, "answers": {"text": [answer], "answer_start": [context.index(answer)]}}


ROWS = [row("Paris"), row("Seine"), row("hiver"), row("wide.", "What is it?"), row("short", context="A short one")]


def data(file, **settings):
    return SpanData(source=TableFiles(file, file), **{"seq_len": 40, "batch_size": 4, "stride": 12, **settings})


@pytest.mark.parametrize("kind", ["bytes", "subwords"])
def test_every_answer_is_found_in_the_windows_that_hold_it_and_in_no_other(kind, table, subwords):
    made = data(table("train", ROWS), tokenizer=TokenizerFolder(str(subwords)) if kind == "subwords" else None)
    answered = {}
    for batch in made.val_dataloader():
        assert batch.tokens.shape[1] <= 40
        for tokens, mask, start, end, index, context in zip(*batch, strict=True):
            question = made.question(int(index))
            head, inside = int(context.int().argmax()), int(context.sum())
            assert context.tolist() == [head <= at < head + inside for at in range(len(context))]
            assert mask.tolist() == [int(at < head + inside) for at in range(len(mask))]
            assert tokens[head - 1] == made.pad_token_id
            (expected,) = made.references(int(index))
            seen = made.answer(int(index), head, head + inside - 1)
            assert seen in ROWS[question]["context"]
            if int(end):
                assert made.answer(int(index), int(start), int(end)) == expected
                answered[question] = answered.get(question, 0) + 1
            else:
                assert expected not in seen
            assert made.answer(int(index), head - 1, head) == made.answer(int(index), head, head + inside) == ""
    assert set(answered) == set(range(len(ROWS)))


def test_all_windows_of_a_question_stand_in_one_batch(table):
    made = data(table("train", ROWS))
    questions = [sorted({made.question(int(index)) for index in batch.index}) for batch in made.val_dataloader()]
    assert [one for some in questions for one in some] == list(range(len(ROWS)))
    assert all(len(batch.index) <= 4 or len(some) == 1 for batch, some in zip(made.val_dataloader(), questions, strict=True))
    windows = torch.cat([batch.index for batch in made.val_dataloader()])
    assert windows.tolist() == list(range(int(windows[0]), int(windows[0]) + len(made.examples("validation"))))
    assert int(windows[0]) == len(made.examples("train"))
    assert len(torch.cat([batch.index for batch in data(table("train", ROWS), eval_examples=2).val_dataloader()])) < len(
        windows
    )


def test_windows_cover_the_context_and_overlap_by_the_stride(table):
    made = data(table("train", ROWS))
    examples = made.examples("train")
    windows = examples.windows[examples.windows[:, 0] == 0]
    assert (windows[0, 1], windows[-1, 2]) == (0, len(CONTEXT.encode()))
    assert (windows[:-1, 2] - windows[1:, 1]).tolist() == [12] * (len(windows) - 1)


def test_answers_are_read_as_a_list_too(table):
    listed = [
        {**one, "answers": [{"text": one["answers"]["text"][0], "answer_start": one["answers"]["answer_start"][0]}]}
        for one in ROWS
    ]
    assert data(table("one", ROWS)).fingerprint == data(table("two", listed)).fingerprint


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ({"text": ["Paris"], "answer_start": [3]}, "the answer 'Paris' does not stand at its answer_start 3, .* has ' larg'"),
        ({"text": ["Paris"], "answer_start": [-5]}, "the answer 'Paris' does not stand at its answer_start -5"),
        ({"text": [], "answer_start": []}, "there is no answer: leave out questions that have none"),
        ({"text": ["Paris"], "answer_start": [1, 2]}, "there are no answers as in"),
        ({"text": [""], "answer_start": [1]}, "an answer has no text"),
        (None, "there are no answers as in .* but 'None'"),
    ],
)
def test_a_bad_answer_is_named(answers, told, table):
    with pytest.raises(InputError, match=f"train .*row 2, column 'answers': {told}"):
        data(table("train", [ROWS[0], ROWS[1] | {"answers": answers}])).setup("fit")


@pytest.mark.parametrize("context", ["the ~~", "~~ the", "the ~~ city", "~~"])
def test_an_answer_without_tokens_is_refused(context, table, dropping):
    file = table("train", [ROWS[0], row("~~", context=context)])
    told = "train .*row 2, column 'answers': no token of the context holds the answer '~~'"
    with pytest.raises(InputError, match=told):
        data(file, tokenizer=TokenizerFolder(str(dropping))).setup("fit")


def test_every_tenth_context_is_held_out_with_all_of_its_questions(table):
    rows = [row("text", f"{ask}?", f"The text {number // 3}") for number in range(60) for ask in ("Which", "What")]
    made = SpanData(source=TableFiles(table("train", rows)))
    held = made.rows("validation")
    assert list(dict.fromkeys(held.columns["context"])) == ["The text 9", "The text 19"]
    assert len(held) == 12
    assert not set(held.columns["context"]) & set(made.rows("train").columns["context"])
    with pytest.raises(InputError, match=r"has 54 rows of 9 different texts in column 'context', and every tenth is held out"):
        SpanData(source=TableFiles(table("few", rows[:54]))).setup("fit")


def test_a_window_that_is_not_there_is_refused(table):
    made = data(table("train", ROWS))
    count = sum(len(made.examples(split)) for split in ("train", "validation"))
    assert made.references(count - 1) == ["short"]
    for index in (-1, count):
        with pytest.raises(InputError, match=f"there is no window {index}: the examples have {count}"):
            made.references(index)


def test_windows_that_would_not_move_on_are_refused(table):
    with pytest.raises(InputError, match=r"--data.stride 19 leaves no room in --data.seq_len 40: at most 18"):
        data(table("train", ROWS), stride=19)
    long = row("Paris", "Why " * 50)
    made = data(table("long", [long]), stride=18)
    assert max(len(batch.tokens[0]) for batch in made.val_dataloader()) == 40
