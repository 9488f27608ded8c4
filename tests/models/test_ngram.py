"""n-gram models: estimated as the textbook says, queried as KenLM does."""

import math
import random
from collections import Counter, defaultdict
from pathlib import Path

import numpy
import pytest

from limner.checkpoints.ngram import open_ngram, save_ngram
from limner.models.ngram import (
    NGramModel,
    NGramVocabulary,
    read_arpa,
    train_on_text,
    train_on_tokens,
    write_arpa,
)

BEGIN, END = "<s>", "</s>"


def some_text(lines: int = 300, seed: int = 0) -> list[str]:
    """Lines of made-up words, common and rare, that depend on the word before."""
    draw = random.Random(seed)
    text = []
    for _ in range(lines):
        word, line = 0, []
        for _ in range(draw.randrange(12)):
            word = (word * 7 + int(draw.paretovariate(0.9))) % 60
            line.append(f"w{word}")
        text.append(" ".join(line))
    return text


class Textbook:
    """Chen and Goodman's formulas, one dictionary look-up at a time."""

    def __init__(self, text: list[str], order: int) -> None:
        sentences = [(BEGIN, *line.split(), END) for line in text]
        self.words = {word for sentence in sentences for word in sentence[1:]} | {"<unk>"}
        raw = [
            Counter(s[at : at + k] for s in sentences for at in range(len(s) - k + 1))
            for k in range(1, order + 1)
        ]
        self.counts: list[dict[tuple[str, ...], int]] = []
        for k in range(1, order):
            lefts = defaultdict(set)
            for longer in raw[k]:
                lefts[longer[1:]].add(longer[0])
            of_start = {gram: n for gram, n in raw[k - 1].items() if gram[0] == BEGIN and k > 1}
            self.counts.append({gram: len(left) for gram, left in lefts.items()} | of_start)
        top = {gram: n for gram, n in raw[-1].items() if gram != (BEGIN,)}
        self.counts.append(top)
        self.discounts = [self.discount(Counter(counts.values())) for counts in self.counts]

    def discount(self, n: Counter[int]) -> tuple[float, ...]:
        if not (n[1] and n[2] and n[3]):
            return (0, 0.5, 1.0, 1.5)
        y = n[1] / (n[1] + 2 * n[2])
        found = [j - (j + 1) * y * n[j + 1] / n[j] for j in (1, 2, 3)]
        good = all(0 < discount <= j for j, discount in enumerate(found, 1))
        return (0, *found) if good else (0, 0.5, 1.0, 1.5)

    def probability(self, context: tuple[str, ...], word: str) -> float:
        counts, discount = self.counts[len(context)], self.discounts[len(context)]
        followers = {gram: n for gram, n in counts.items() if gram[:-1] == context}
        lower = self.probability(context[1:], word) if context else 1 / len(self.words)
        if not followers:
            return lower
        total = sum(followers.values())
        count = followers.get((*context, word), 0)
        gamma = sum(discount[min(n, 3)] for n in followers.values()) / total
        return (count - discount[min(count, 3)]) / total + gamma * lower


@pytest.fixture(scope="module")
def trigrams() -> NGramModel:
    return train_on_text(some_text(), order=3)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_are_those_of_the_textbook(order):
    text = some_text(80)
    model, textbook = train_on_text(text, order=order), Textbook(text, order)
    for line in (*text[:4], *some_text(4, seed=9), "w1 never w2"):
        words = [word if word in textbook.words else "<unk>" for word in line.split()]
        sentence = [BEGIN, *words, END]
        ids = [model.vocabulary.begin, *model.vocabulary.encode(line), model.vocabulary.end]
        expected = [
            textbook.probability(tuple(sentence[max(0, at - order + 1) : at]), sentence[at])
            for at in range(1, len(sentence))
        ]
        numpy.testing.assert_allclose(10 ** model.score(ids)[1:], expected, rtol=1e-6)


def test_perplexity_equals_kenlm(trigrams, tmp_path):
    kenlm = pytest.importorskip("kenlm")
    write_arpa(trigrams, tmp_path / "model.arpa")
    peer = kenlm.Model(str(tmp_path / "model.arpa"))
    held_out = [*some_text(40, seed=5), "w1 never seen w3"]
    total = sum(peer.score(line) for line in held_out)
    words = sum(len(line.split()) + 1 for line in held_out)
    ours = trigrams.perplexity(map(trigrams.vocabulary.encode, held_out))
    assert ours == pytest.approx(10 ** (-total / words), rel=1e-6)


def test_little_memory_gives_the_same_model(trigrams, tmp_path):

    again = train_on_text(iter(some_text()), order=3, memory=1, folder=tmp_path)
    assert again.vocabulary.words == trigrams.vocabulary.words
    for one, other in zip(again.orders, trigrams.orders, strict=True):
        assert numpy.array_equal(one.keys, other.keys)
        numpy.testing.assert_allclose(one.logarithms, other.logarithms, rtol=1e-6)
        numpy.testing.assert_allclose(one.backoffs, other.backoffs, rtol=1e-6, atol=1e-7)
    assert not list(tmp_path.iterdir())  # temporary files are gone


def test_what_comes_next_is_a_distribution_and_agrees_with_scores(trigrams):
    vocabulary = trigrams.vocabulary
    for text in ("", "w1", "w3 w4", "w8 w8 w8", "never", "w1 never"):
        context = [vocabulary.begin, *vocabulary.encode(text)]
        following = trigrams.next(context)
        assert numpy.exp(following).sum() == pytest.approx(1, abs=1e-6)
        scores = [
            trigrams.score([*context, token])[-1] * math.log(10)
            for token in range(len(vocabulary))
            if token != vocabulary.begin
        ]
        numpy.testing.assert_allclose(numpy.delete(following, vocabulary.begin), scores, rtol=1e-6)


def test_arpa_and_folders_give_the_same_numbers_back(trigrams, tmp_path):
    write_arpa(trigrams, tmp_path / "model.arpa")
    save_ngram(trigrams, tmp_path / "folder")
    for again in (read_arpa(tmp_path / "model.arpa"), open_ngram(tmp_path / "folder")):
        assert again.vocabulary.words == trigrams.vocabulary.words
        assert again.counts == trigrams.counts
        for one, other in zip(again.orders, trigrams.orders, strict=True):
            assert numpy.array_equal(one.keys, other.keys)
            assert numpy.array_equal(one.logarithms, other.logarithms)
            assert numpy.array_equal(one.backoffs, other.backoffs)


def test_token_ids_of_a_tokenizer_are_its_words():
    sentences = [[int(word[1:]) for word in line.split()] for line in some_text()]
    model = train_on_tokens(sentences, NGramVocabulary.of_tokens(70), order=3)
    words = train_on_text(some_text(), order=3)
    following = model.next([model.vocabulary.begin, 1])
    assert len(following) == 73
    assert numpy.exp(following).sum() == pytest.approx(1, abs=1e-6)
    # More words share what is left for unseen ones, so only the order of the seen is the same.
    other = words.next([words.vocabulary.begin, words.vocabulary.ids["w1"]])
    assert words.vocabulary.words[int(other.argmax())] == f"w{following.argmax()}"


def test_samples_follow_the_distribution_and_the_seed(trigrams):
    def draw(seed: int, temperature: float) -> list[int]:
        generator = numpy.random.default_rng(seed)
        return trigrams.sample(generator, limit=30, temperature=temperature)

    assert draw(1, 1.0) == draw(1, 1.0)
    assert len({tuple(draw(seed, 1.0)) for seed in range(8)}) > 4
    likeliest = draw(0, 0)
    assert likeliest == draw(1, 0)
    text = [trigrams.vocabulary.begin]
    for token in likeliest:
        assert trigrams.next(text).argmax() == token
        text.append(token)


def test_only_ascii_white_space_parts_words():
    model = train_on_text(["two\u00a0words\tone\u2003more", "a b"], order=2)
    assert model.vocabulary.words[3:] == ["two\u00a0words", "one\u2003more", "a", "b"]


def test_texts_that_follow_one_another_do_not_see_each_other(trigrams):
    vocabulary = trigrams.vocabulary
    first, second = (
        [vocabulary.begin, *vocabulary.encode(line), vocabulary.end]
        for line in ("w1 w7 w50", "w3 w4")
    )
    apart = [*trigrams.score(first), *trigrams.score(second)]
    numpy.testing.assert_array_equal(trigrams.score(first + second), apart)


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        (("\\2-grams:", "\\x"), "is no"),
        (("ngram 2=", "ngram 2=1"), "were announced but there are"),
        (("\\end\\", ""), "cut short"),
        (("\\data\\", ""), None),
        (("</s>\n", "</s> w1 w1 w1 w1\n"), "is no"),
        (("</s>\n", "nobody\n"), "'nobody'"),
    ],
)
def test_a_damaged_arpa_file_is_named_with_the_line(trigrams, tmp_path, spoilt, message):
    path = Path(tmp_path / "model.arpa")
    write_arpa(trigrams, path)
    old, new = spoilt
    text = path.read_text(encoding="utf-8")
    head, _, tail = text.rpartition(old)
    path.write_text(head + new + tail, encoding="utf-8")
    if message is None:
        assert read_arpa(path).counts == trigrams.counts  # what stands before is a comment
        return
    with pytest.raises(ValueError, match=f"line \\d+: .*{message}"):
        read_arpa(path)


def test_an_arpa_file_without_unknown_words_gets_one(tmp_path):
    path = tmp_path / "model.arpa"
    path.write_text(
        "\\data\\\nngram 1=3\nngram 2=2\n\n\\1-grams:\n"
        "-99\t<s>\t-0.3\n-0.5\ta\t-0.2\n-0.5\t</s>\n\n"
        "\\2-grams:\n-0.1\t<s> a\n-0.2\ta </s>\n\n\\end\\\n",
        encoding="utf-8",
    )
    model = read_arpa(path)
    begin, end, a = (model.vocabulary.ids[word] for word in (BEGIN, END, "a"))
    scores = model.score([begin, a, model.vocabulary.unknown, end])
    numpy.testing.assert_allclose(scores, [0, -0.1, -100.2, -0.5], rtol=1e-6)


def test_mistakes_say_what_to_do():
    with pytest.raises(ValueError, match="at least one sentence"):
        train_on_text([])
    with pytest.raises(ValueError, match="must be 1 or more, not 0"):
        train_on_text(["a"], order=0)
    with pytest.raises(ValueError, match="the word '</s>', which the model needs"):
        train_on_text(["a </s> b"])
    model = train_on_text(["a b", "b a"], order=2)
    with pytest.raises(ValueError, match="token 9 is not in the model's vocabulary of 5"):
        model.score([9])
    with pytest.raises(ValueError, match="at least one sentence"):
        model.perplexity([])


def test_a_word_with_white_space_cannot_go_to_arpa(tmp_path):
    model = train_on_tokens([[0]], NGramVocabulary(["new york", "<unk>", BEGIN, END]), order=2)
    with pytest.raises(ValueError, match="'new york'"):
        write_arpa(model, tmp_path / "model.arpa")
