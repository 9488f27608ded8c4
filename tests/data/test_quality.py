from pathlib import Path

import pytest

from limner.config import read_settings
from limner.data.quality import MEASURES, PRESETS, Document, Quality, judge

PROSE = """The committee met on Tuesday to talk about the harbour and what ought to become of it.
Several members said that the old wall could not be saved, and that money spent there was lost.
Others thought it would be a shame to pull down what their grandfathers had built with such care.
In the end they agreed to ask an engineer for advice, and to have another meeting in the spring."""


def measure(name, text, **settings):
    return MEASURES[name](Document(text, Quality(**settings)))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("characters", "ab cd", 5),
        ("words", "ab cd  ef", 3),
        ("mean_word_length", "a bb ccc", 2),
        ("symbol_ratio", "# a b ... c…", 2 / 5),
        ("bullet_lines", "- a\n* b\nc\n\n• d", 3 / 4),
        ("ellipsis_lines", "a ...\nb…\nc.\n", 2 / 3),
        ("alphabetic_words", "one 2 -- 3rd", 2 / 4),
        ("stop_words", "The cat, and the (dog)", 2),
        ("stop_word_share", "The cat, and the dog", 3 / 5),
        ("duplicate_lines", "a\nb\n a\n\na", 2 / 4),
        ("duplicate_line_characters", "aaaa\nbb\naaaa", 4 / 10),
        ("duplicate_paragraphs", "a\nb\n\nc\n \na\nb", 1 / 3),
        ("duplicate_paragraph_characters", "aaaa\n\nbb\n\naaaa", 4 / 10),
        ("top_2_gram", "aa b cc aa b dd", 6 / 10),
        ("top_2_gram", "all of these differ", 0),
        ("top_3_gram", "no no no no", 1),
        ("top_4_gram", "too few words", 0),
        # The second run of five stood there before; its characters count once.
        ("duplicate_5_grams", "a b c d e X a b c d e", 5 / 11),
        ("duplicate_5_grams", "a a a a a a a", 6 / 7),
        ("duplicate_10_grams", "a b c d e X a b c d e", 0),
        ("sentences", 'He said "no." Why? 3.5 is no end…', 3),
        ("curly_brackets", "{a} {", 2),
        ("phrases", "Lorem ipsum dolor LOREM IPSUM", 2),
        ("mean_line_length", "ab\n\nabcd", 3),
        ("longest_line", "ab\nabcd", 4),
        ("alphanumeric", "a1 -", 0.5),
    ],
)
def test_a_measure_by_hand(name, text, value):
    assert measure(name, text) == pytest.approx(value)


@pytest.mark.parametrize("name", list(MEASURES))
def test_every_measure_takes_an_empty_text(name):
    assert measure(name, "") == 0


@pytest.mark.parametrize("preset", ["gopher", "c4"])
def test_prose_passes_and_what_is_none_does_not(preset):
    quality = Quality(preset=preset)
    assert judge(PROSE, quality) is None
    menu = "Home\n" + "Shop { cart }\nBasket\n" * 30
    assert judge(menu, quality) is not None


def test_code_passes_the_rules_for_code():
    code = Path(__file__).read_text()
    assert judge(code, Quality(preset="code")) is None
    assert judge("x = [" + "1, " * 600 + "]", Quality(preset="code")) == (
        "mean_line_length",
        "1806 is above 100",
    )


def test_the_first_broken_rule_is_named_with_its_bound():
    assert judge("only four words here", Quality(preset="gopher")) == ("words", "4 is below 50")
    longs = "incomprehensibilities " * 60
    assert judge(longs, Quality(preset="gopher")) == ("mean_word_length", "21 is above 10")


def test_a_preset_can_be_changed(tmp_path):
    (tmp_path / "s.yaml").write_text("preset: gopher\nwords: [2, null]\n")
    changed = read_settings(Quality, tmp_path / "s.yaml", ["stop_words=[0, null]"])
    assert list(changed.words) == [2, None]
    assert dict(changed.rules)["mean_word_length"] == (3, 10)
    assert judge("only four words here", changed) is None
    with pytest.raises(ValueError, match="stop_words"):
        read_settings(Quality, None, ["stop_word=[0, null]"])


def test_another_language_brings_its_own_small_words():
    german = "Der Hund und die Katze sind nicht im Haus"
    words = {"stop_word_list": ("der", "die", "und", "nicht")}
    assert measure("stop_words", german) == 0
    assert measure("stop_words", german, **words) == 4


def test_presets_name_measures_only():
    assert {name for preset in PRESETS.values() for name in preset} <= set(MEASURES)
