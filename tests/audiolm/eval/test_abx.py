"""ABX on cases whose answer is known."""

import numpy as np
import pytest

from audiolm.errors import InputError
from audiolm.eval.abx import (
    Item,
    abx_error,
    across_cases,
    averaged,
    dtw,
    frames_of,
    some_cases,
    triphones,
    within_cases,
    without,
)
from audiolm.eval.phones import Phone

RATE = 100.0
DIRECTIONS = {"AA": 0, "IY": 1, "UW": 2}


def spoken(speakers=("one", "two"), times=4, shift=0.0, mixed=False, seed=0):
    """Clips of one triphone each, and features: a phone is an axis, a speaker an angle added to it."""
    rng, items, features = np.random.default_rng(seed), [], {}
    for number, speaker in enumerate(speakers):
        for phone, axis in DIRECTIONS.items():
            for k in range(times):
                clip, frames = f"{speaker}/{phone}{k}", int(rng.integers(5, 12))
                direction = np.eye(6)[int(rng.integers(3)) if mixed else axis] + shift * number * np.eye(6)[4]
                features[clip] = direction + 0.01 * rng.standard_normal((frames, 6))
                items.append(Item(clip, speaker, ("B", "T"), phone, 0.0, frames / RATE))
    return items, features


def plain_dtw(x, y):
    """The textbook's recursion, one pair."""
    angle = np.arccos(np.clip(x @ y.T, -1, 1)) / np.pi
    best = {(0, 0): (0.0, 0)}
    for i in range(1, len(x) + 1):
        for j in range(1, len(y) + 1):
            ways = [best[p] for p in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if p in best]
            cost, length = min(ways, key=lambda way: way[0])
            best[i, j] = (cost + angle[i - 1, j - 1], length + 1)
    cost, length = best[len(x), len(y)]
    return cost / length


def test_warping_equals_the_textbook_whatever_the_padding():
    rng = np.random.default_rng(0)
    sizes = [(1, 1), (1, 7), (5, 5), (9, 3), (8, 12)]
    pairs = [[(v := rng.standard_normal((n, 4))) / np.linalg.norm(v, axis=1, keepdims=True) for n in s] for s in sizes]
    x, y = np.full((5, 9, 4), 0.5), np.full((5, 12, 4), -0.5)
    for row, (a, b) in enumerate(pairs):
        x[row, : len(a)], y[row, : len(b)] = a, b
    found = dtw(x, np.array([n for n, _ in sizes]), y, np.array([m for _, m in sizes]))
    np.testing.assert_allclose(found, [plain_dtw(a, b) for a, b in pairs], atol=1e-5)


def test_speaking_slower_costs_nothing():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((6, 8))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    slow = np.repeat(x, 3, 0)
    assert dtw(x[None], np.array([6]), slow[None], np.array([18]))[0] < 1e-3


def test_features_that_are_the_phone_err_never_and_noise_errs_half_the_time():
    items, features = spoken()
    for cases in (within_cases(items), across_cases(items)):
        assert abx_error(features, RATE, items, cases).error == 0
    items, features = spoken(times=30, mixed=True)
    assert abs(abx_error(features, RATE, items, within_cases(items, most=30)).error - 0.5) < 0.06
    constant = {clip: np.ones((len(x), 3)) for clip, x in features.items()}
    assert abx_error(constant, RATE, items, across_cases(items)).error == 0.5


def test_a_speaker_in_the_features_hurts_across_speakers_alone():
    items, features = spoken()
    for clip in features:  # the other speaker's AA lies where this one's IY is, and so on round
        if clip.startswith("two"):
            features[clip] = features[clip][:, [2, 0, 1, 3, 4, 5]]
    assert abx_error(features, RATE, items, within_cases(items)).error == 0
    assert abx_error(features, RATE, items, across_cases(items)).error > 0.6


def test_small_pieces_change_nothing():
    items, features = spoken(shift=0.5, times=5)
    cases = across_cases(items, most=3, seed=1)
    assert abx_error(features, RATE, items, cases, chunk=50) == abx_error(features, RATE, items, cases)
    assert max(len(case.x) for case in cases) == 3


def test_cases_hold_what_they_promise():
    items, _ = spoken(times=2)
    for case in within_cases(items):
        assert {items[i].phone for i in case.a + case.x} == {case.phones[0]}
        assert {items[i].phone for i in case.b} == {case.phones[1]}
        assert len({items[i].speaker for i in case.a + case.b + case.x}) == 1
    assert len(within_cases(items)) == 2 * 6
    for case in across_cases(items):
        assert {items[i].speaker for i in case.a + case.b} == {case.speakers[0]}
        assert {items[i].speaker for i in case.x} == {case.speakers[1]} != {case.speakers[0]}
    assert not within_cases(spoken(times=1)[0])


def test_triphones_leave_out_pauses_and_unknown_words():
    names = ["SIL", "K", "AE", "T", "UNK", "S", "IH", "T", "SIL"]
    phones = {"one/a": [Phone(name, i / 10, (i + 1) / 10) for i, name in enumerate(names)]}
    items = triphones(phones, lambda clip: clip.split("/")[0])
    assert [(item.context, item.phone) for item in items] == [(("K", "T"), "AE"), (("S", "T"), "IH")]
    assert (items[0].start, items[0].end, items[0].speaker) == (0.1, 0.4, "one")


def test_frames_are_those_whose_middle_lies_inside():
    x = np.arange(10)[:, None]
    item = Item("a", "a", ("B", "T"), "AA", 0.1, 0.26)
    assert frames_of(item, x, 25)[:, 0].tolist() == [2, 3, 4, 5, 6]  # middles at 0.10 to 0.26
    assert frames_of(Item("a", "a", ("B", "T"), "AA", 0.9, 0.95), x, 25)[:, 0].tolist() == [9]


def test_nothing_to_compare_is_an_error():
    items, features = spoken(times=1)
    with pytest.raises(InputError, match="no ABX case"):
        abx_error(features, RATE, items, [])
    with pytest.raises(InputError, match="one/AA0 has no features"):
        abx_error({}, RATE, items, across_cases(items))


def plain_unequal_dtw(x, y):
    """The textbook's recursion on tokens: the cheapest path, the shortest of equal ones where diagonals go first."""
    best = {(0, 0): (0.0, 0)}
    for i in range(1, len(x) + 1):
        for j in range(1, len(y) + 1):
            ways = [best[p] for p in ((i - 1, j - 1), (i, j - 1), (i - 1, j)) if p in best]
            cost, length = min(ways, key=lambda way: way[0])
            best[i, j] = (cost + float(x[i - 1] != y[j - 1]), length + 1)
    cost, length = best[len(x), len(y)]
    return cost / length


def brute_force(items, features, rate, *, across):
    """The definition, written out over all triples: it shares nothing with what is tested but the frames of an item."""

    def distance(i, j):
        x, y = (frames_of(items[k], features[items[k].clip], rate) for k in sorted((i, j)))
        if np.issubdtype(x.dtype, np.integer):
            return plain_unequal_dtw(x, y)
        return plain_dtw(*(z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y)))

    numbers, cells = range(len(items)), {}
    known = {(i, j): distance(i, j) for i in numbers for j in numbers if i <= j}
    for a in numbers:
        for b in numbers:
            for x in numbers:
                one, two, three = items[a], items[b], items[x]
                same = one.context == two.context == three.context and one.speaker == two.speaker
                if not same or one.phone == two.phone or three.phone != one.phone or x == a:
                    continue
                if (three.speaker != one.speaker) != across:
                    continue
                to_a, to_b = known[min(a, x), max(a, x)], known[min(b, x), max(b, x)]
                key = (one.phone, two.phone, one.speaker, three.speaker, one.context)
                cells.setdefault(key, []).append(1.0 if to_b < to_a else 0.5 if to_b == to_a else 0.0)
    levels = {key: np.mean(values) for key, values in cells.items()}
    for size in (3, 2):  # contexts and speakers of X together, then speakers of A
        grouped = {}
        for key, value in levels.items():
            grouped.setdefault(key[:size], []).append(value)
        levels = {key: np.mean(values) for key, values in grouped.items()}
    return np.mean(list(levels.values()))


@pytest.mark.parametrize("tokens", [False, True])
def test_the_error_equals_the_definition_counted_triple_by_triple(tokens):
    rng, items, features = np.random.default_rng(3), [], {}
    for k in range(70):
        phone, speaker = int(rng.integers(3)), int(rng.integers(3))
        frames = int(rng.integers(2, 6))
        x = np.eye(5)[phone] + 0.3 * np.eye(5)[3] * speaker + 0.7 * rng.standard_normal((frames, 5))
        features[f"c{k}"] = x.argmax(1) if tokens else x.astype(np.float32)
        context = ("B", "T") if rng.random() < 0.6 else ("K", "T")
        items.append(Item(f"c{k}", f"s{speaker}", context, f"P{phone}", 0.0, frames / RATE))
    for make, across in ((within_cases, False), (across_cases, True)):
        found = abx_error(features, RATE, items, make(items, most=100)).error
        assert found == pytest.approx(brute_force(items, features, RATE, across=across), abs=1e-6)
        assert 0.05 < found < 0.5


def test_tokens_that_are_the_phone_err_never_and_one_token_errs_half_the_time():
    items, features = spoken()
    phones = {item.clip: list(DIRECTIONS).index(item.phone) for item in items}
    tokens = {clip: np.full(len(x), phones[clip]) for clip, x in features.items()}
    for cases in (within_cases(items), across_cases(items)):
        assert abx_error(tokens, RATE, items, cases).error == 0
        assert abx_error({clip: 0 * x for clip, x in tokens.items()}, RATE, items, cases).error == 0.5
        one_hot = {clip: np.eye(3)[x] for clip, x in tokens.items()}
        assert abx_error(one_hot, RATE, items, cases).error == 0


def test_a_null_frame_is_far_from_every_other_and_like_another():
    items, features = spoken(times=2)
    null = {item.clip: 0 * features[item.clip] if item.phone == "AA" else features[item.clip] for item in items}
    assert abx_error(null, RATE, items, within_cases(items)).error == 0


def test_x_is_of_a_few_other_speakers():
    items, _ = spoken(speakers=[f"s{i}" for i in range(8)], times=1)
    assert len(across_cases(items, speakers=None)) == 8 * 3 * 2 * 7
    cases = across_cases(items, speakers=5)
    assert len(cases) == 8 * 3 * 2 * 5
    assert cases == across_cases(items, speakers=5)


def test_cases_are_drawn_and_lost_items_leave_them():
    items, _ = spoken(times=2)
    cases = within_cases(items)
    assert some_cases(cases, None) == some_cases(cases, 100) == cases
    assert len(some_cases(cases, 5)) == 5
    assert some_cases(cases, 5) == [case for case in cases if case in some_cases(cases, 5)]
    assert without(cases, set()) == cases
    lost = cases[0].a[0]  # of two; the other has nothing to be held against
    left = without(cases, {lost})
    assert all(lost not in case.a + case.b + case.x for case in left)
    assert len(left) == len(cases) - 2
    assert without(cases, set(range(len(items)))) == []


def test_the_mean_is_over_contexts_then_speakers_then_phones_with_an_interval():
    items, _ = spoken()
    cases = across_cases(items)
    errors = np.array([0.4 if set(case.phones) == {"AA", "IY"} else 0.1 for case in cases])
    score = averaged(cases, errors)
    assert score.error == pytest.approx(0.2)
    assert score.pairs == 3
    assert score.low == pytest.approx(0.1)
    assert score.high == pytest.approx(0.4)
    assert str(score.percent) == "20.00 (10.00 to 40.00)"


def test_decimal_onsets_count_as_written():
    x = np.arange(60)[:, None]
    item = Item("a", "a", ("B", "T"), "AA", 0.145, 0.345)  # times 100 each is a hair beside its half
    assert frames_of(item, x, 100)[[0, -1], 0].tolist() == [14, 34]
