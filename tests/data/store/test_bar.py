import io

from rich.console import Console

from ngpt_lab.data import store
from ngpt_lab.data.sources.text_files import TextFiles
from ngpt_lab.data.store import bar


def test_a_terminal_is_told_how_far_a_split_is_and_what_of_it_is_left_where_that_is_known(tmp_path, sample, monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(bar, "Console", lambda stderr: Console(file=shown, force_terminal=True, width=200))
    text = tmp_path / "a.txt"
    text.write_text("text and more of it\n" * 200_000)
    store.build(TextFiles(str(text)), None, tmp_path / "a")
    assert all(size in shown.getvalue() for size in ("train 2 of 4 MB", "3,600,001 tokens", "-:--:--"))
    shown.truncate(0)
    store.build(sample, None, tmp_path / "b")
    assert "0 MB" in shown.getvalue()
    assert "of " not in shown.getvalue()


def test_the_size_that_is_expected_of_a_split_is_the_size_that_it_has(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"text of {name}\n" * 999)
    for held_out in ({}, {"validation": str(tmp_path / "b.txt")}):
        source = TextFiles(str(tmp_path / "*.txt"), **held_out)
        corpus = store.open_folder(store.build(source, None, tmp_path / f"store{len(held_out)}"))
        for split, stream in corpus.splits.items():
            assert abs(stream.bytes - source.expected(split)) <= 1
    assert TextFiles(str(tmp_path / "*.txt"), separator="|").expected("train") is None
