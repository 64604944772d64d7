"""Sequences, their split, readers and the generator, against plain loops and the published counts."""

import gzip
import os
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.data import interactions, registry
from workbench.data.interactions import Interactions, padded, read_inter, read_sequences, synthetic
from workbench.errors import DataError, ParameterError

few = settings(max_examples=60, deadline=None)
events = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=80)


def build(rows):
    return Interactions.from_events(*(list(c) for c in zip(*rows, strict=True)))


def by_hand(rows):
    """User name → item names from old to new, by Python's stable sort."""
    out = {}
    for user, item, _ in sorted(rows, key=lambda r: r[2]):
        out.setdefault(str(user), []).append(str(item))
    return out


def named(data, sequence):
    return [data.items[i] for i in sequence]


def core_by_hand(rows, users, items):
    while True:
        kept = [
            r
            for r in rows
            if sum(q[0] == r[0] for q in rows) >= users and sum(q[1] == r[1] for q in rows) >= items
        ]
        if len(kept) == len(rows):
            return kept
        rows = kept


# -- sequences and split ---------------------------------------------------------------------------


@few
@given(events)
def test_sequences_are_sorted_by_time_and_ties_keep_the_order_given(rows):
    data = build(rows)
    assert {u: named(data, s) for u, s in zip(data.users, data.sequences, strict=True)} == by_hand(rows)
    assert len(data) == len(rows) and data.events.dtype == np.int64


@few
@given(events, st.integers(1, 3))
def test_the_last_items_are_targets_and_each_history_is_all_before(rows, rolling):
    data = build(rows).with_rolling(rolling)
    valid, test = {}, {}
    for user, whole in by_hand(rows).items():
        u, n = data.users.index(user), len(whole)
        full = n >= rolling + 2
        assert named(data, data.train[u]) == (whole[: n - rolling - 1] if full else whole)
        if full:
            valid[u] = [(whole[: n - rolling - 1], whole[n - rolling - 1])]
            test[u] = [(whole[:k], whole[k]) for k in range(n - rolling, n)]
    for held, expected in ((data.valid, valid), (data.test, test)):
        found = {}
        for u, history, target in zip(held.users.tolist(), held.histories, held.targets, strict=True):
            found.setdefault(u, []).append((named(data, history), data.items[target]))
        assert found == expected
        assert held.users.tolist() == sorted(held.users.tolist())


@few
@given(events, st.integers(1, 4), st.integers(1, 4))
def test_k_core_equals_removal_one_round_at_a_time(rows, users, items):
    kept = core_by_hand(rows, users, items)
    if not kept:
        with pytest.raises(DataError, match="no part of"):
            build(rows).k_core(users, items)
        return
    core = build(rows).k_core(users, items)
    assert {u: named(core, s) for u, s in zip(core.users, core.sequences, strict=True)} == by_hand(kept)


@few
@given(events)
def test_popularity_counts_training_items_only(rows):
    data = build(rows)
    counts = [sum(s.tolist().count(i) for s in data.train) for i in range(data.n_items)]
    assert data.counts.tolist() == counts
    items, n = data.popular(3)
    assert items.tolist() == sorted(range(data.n_items), key=lambda i: (-counts[i], i))[:3]
    assert n.tolist() == [counts[i] for i in items]


@few
@given(events, st.integers(1, 6))
def test_padding_keeps_the_newest_items_on_the_left(rows, length):
    data = build(rows)
    table, sizes = padded(data.sequences, length)
    for row, size, sequence in zip(table.tolist(), sizes.tolist(), data.sequences, strict=True):
        newest = sequence.tolist()[-length:]
        assert row == newest + [-1] * (length - len(newest)) and size == len(newest)


def test_numbers_follow_whole_number_names_by_value_and_others_by_alphabet():
    assert Interactions.from_events([1, 1, 1], [10, 9, 100]).items == ("9", "10", "100")
    assert Interactions.from_events([1, 1, 1], ["10", "9", "x"]).items == ("10", "9", "x")


def test_fingerprint_tells_sequences_apart_and_not_names_of_data_sets():
    a, b = Interactions.from_events([1, 1, 1], [1, 2, 3]), Interactions.from_events([1, 1, 1], [1, 3, 2])
    assert a.fingerprint() != b.fingerprint()
    assert a.fingerprint() == Interactions.from_events([1, 1, 1], [1, 2, 3], name="other").fingerprint()


def test_data_without_targets_are_refused_and_the_user_named():
    short = Interactions.from_events([*"aabbbc"], range(6), name="log")
    assert short.require_targets() is short and len(short.test.targets) == 1
    with pytest.raises(DataError, match=r"log: 2 of 3 users .* the 3 interactions .* first, user 'a', has 2"):
        short.require_targets(every=True)
    rolled = short.with_rolling(2)
    with pytest.raises(DataError, match=r"3 of 3 users .* 4 interactions .* longest, user 'b', has 3"):
        rolled.require_targets()
    assert len(rolled.test.targets) == len(rolled.valid.targets) == 0 and len(rolled.train[1]) == 3


def test_rows_in_any_order_and_times_that_are_not_whole_give_the_same_sequences(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,time\na,z,2.5\na,x,-1\nb,y,0.25\na,y,1e0\n")
    assert contents(read_inter(tmp_path / "a.csv")) == {"a": ["x", "y", "z"], "b": ["y"]}


def test_arrays_cannot_be_written_to():
    data = build([(0, 0, 0)])
    with pytest.raises(ValueError):
        data.events[0] = 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([], []), "has no interactions"),
        (([1, 2], [1]), "2 users for 1 items"),
        (([1], [1], [1, 2]), "2 times for 1 interactions"),
        (([1, 2], [1, 1], [0.0, np.nan]), "row 1: the time is not a finite number"),
        (([1], [1], ["x"]), "times must be numbers"),
        (([1], [1], np.array(["NaT"], dtype="datetime64[s]")), "row 0: the time is not"),
        (([1, None], [1, 1]), "row 1 has no user"),
        (([1, 2], [1, float("nan")]), "row 1 has no item"),
        (([1, 2], ["", 1]), "row 0 has no item"),
    ],
)
def test_bad_columns_are_refused(columns, message):
    with pytest.raises(DataError, match=message):
        Interactions.from_events(*columns)


def test_items_are_found_by_name_title_and_number_and_unknown_ones_refused(tmp_path):
    (tmp_path / "films.csv").write_text("item_id,title\n7,Heat\n8,Fargo\n")
    data = Interactions.from_events([1, 1], [7, 8]).with_items(tmp_path / "films.csv")
    assert data.index("8") == data.index("Fargo") == data.index(1) == 1
    with pytest.raises(DataError, match="did you mean 'Fargo'"):
        data.index("Frago")
    with pytest.raises(DataError, match="from 0 to 1, not 2"):
        data.index(2)
    with pytest.raises(ParameterError, match="at least 1 test target"):
        data.with_rolling(0)


# -- files -----------------------------------------------------------------------------------------

ROWS = [("a", "x", 30), ("b", "x", 5), ("a", "y", 10), ("b", "z", 7), ("a", "z", 10)]
EXPECTED = {"a": ["y", "z", "x"], "b": ["x", "z"]}


def contents(data):
    return {u: named(data, s) for u, s in zip(data.users, data.sequences, strict=True)}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.txt", "a y z x\nb x z\n"),
        ("pairs.txt", "a y\nb\tx\na z\n\nb z\na x"),
        ("crlf.txt", "a y z x\r\nb x z\r\n"),
        ("log.txt.gz", "a y z x\nb x z\n"),
    ],
)
def test_lines_of_one_item_and_of_many_are_one_format(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    data = read_sequences(path)
    assert contents(data) == EXPECTED
    assert data.name == name.split(".")[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n  \n", "is empty"),
        (b"a x\nb\n", "line 2 has a user, 'b', but no item"),
        (b"a \xff\xfe\n", "cannot be read as text"),
    ],
)
def test_a_bad_sequence_file_is_refused(tmp_path, content, message):
    (tmp_path / "log.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_sequences(tmp_path / "log.txt")
    with pytest.raises(DataError, match="there is no file"):
        read_sequences(tmp_path / "other.txt")


def lines(separator, header):
    return "\n".join([*header, *(separator.join(map(str, row)) for row in ROWS)]) + "\n"


def test_every_table_format_gives_the_same_sequences(tmp_path):
    (tmp_path / "a.csv").write_text(lines(",", ["userId,movieId,timestamp"]))
    (tmp_path / "a.inter").write_text(lines("\t", ["user_id:token\titem_id:token\ttimestamp:float"]))
    (tmp_path / "ratings.dat").write_text(lines("::", []))
    frame = pd.DataFrame(ROWS, columns=["user", "item", "time"])
    frame.assign(time=pd.to_datetime(frame.time, unit="s")).to_parquet(tmp_path / "a.parquet")
    assert contents(read_inter(tmp_path / "a.csv")) == EXPECTED
    assert contents(read_inter(tmp_path / "a.inter")) == EXPECTED
    assert contents(read_inter(tmp_path / "a.parquet")) == EXPECTED
    assert contents(read_inter(tmp_path / "ratings.dat", 0, 1, 2, header=False, separator="::")) == EXPECTED


def test_times_are_compared_exactly_as_numbers_and_as_dates(tmp_path):
    big = 1_700_000_000_000_000_001  # not a float64
    (tmp_path / "ns.csv").write_text(f"user,item,time\na,x,{big}\na,y,{big - 1}\n")
    assert contents(read_inter(tmp_path / "ns.csv")) == {"a": ["y", "x"]}
    (tmp_path / "iso.csv").write_text(
        "user,item,time\na,x,2020-01-02T10:00:00Z\na,y,2020-01-02\na,z,2019-12-31\n"
    )
    assert contents(read_inter(tmp_path / "iso.csv")) == {"a": ["z", "y", "x"]}


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "it is empty"),
        ("user,item,time\n", {}, "only a header"),
        ("user,thing,time\na,x,1\n", {}, "no column 'item_id' for items; its columns are 0: user, 1: thing"),
        ("user,item\na,x\n", {}, "no column 'timestamp' for times"),
        ("user,item,time\na,x,1\n", {"time": "times"}, "did you mean 'time'"),
        ("user,item,time,item\na,x,1,y\n", {}, "2 columns called 'item'"),
        (
            "user,item,time\na,x,1\nb,y,soon\n",
            {},
            "data row 1: the time must be a number or a date, not 'soon'",
        ),
        ("user,item,time\na,x,2020-01-01\nb,y,soon\n", {}, "data row 1: .* not 'soon'"),
        ("user,item,time\na,x,1.5\nb,y,nan\n", {}, "data row 1: .* not 'nan'"),
        ("user,item,time\na,x,1\nb,,2\n", {}, "data row 1 has no item"),
        ("user,item,time\na,x,1\nb,y,2\nc,z\n", {}, "data row 2 has 2 cells where 3 are expected"),
    ],
)
def test_a_bad_table_is_refused_in_a_sentence_that_names_the_place(tmp_path, text, options, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_inter(tmp_path / "a.csv", **options)


def test_an_unknown_extension_asks_for_the_separator(tmp_path):
    (tmp_path / "a.dat").write_text("user,item,time\na,x,1\n")
    with pytest.raises(ParameterError, match="separator"):
        read_inter(tmp_path / "a.dat")


def test_item_tables_give_titles_attributes_and_paths_and_stay_aligned_in_the_core(tmp_path):
    (tmp_path / "i.csv").write_text(
        "item,title,year,genres\n3,Heat,1995,Crime|Drama|Crime\n1,Solo,2018,\n9,Not here,1,X\n"
    )
    data = Interactions.from_events([1, 1, 1, 2, 2], [1, 2, 3, 3, 3])
    told = data.with_items(tmp_path / "i.csv", title=["title", "year"], ordered=True)
    assert told.titles == ("Solo 2018", "2", "Heat 1995")
    assert told.attributes == told.paths == ((), (), ("Crime", "Drama"))
    core = told.k_core(users=1, items=2)
    assert (core.items, core.titles, core.paths) == (("3",), ("Heat 1995",), (("Crime", "Drama"),))
    assert data.with_items(tmp_path / "i.csv").paths is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item,title\n1,A\n1,B\n", "data row 1 describes '1' again, after row 0"),
        ("item,title\nq,A\n", "describes none of the 1 items .* its first is 'q', theirs is '1'"),
        ("item,title\n", "describes none of the 1 items"),
        ("article,title\n1,A\n", "no column 'item_id' for items"),
    ],
)
def test_a_bad_item_table_is_refused(tmp_path, text, message):
    (tmp_path / "i.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        Interactions.from_events([1], [1]).with_items(tmp_path / "i.csv")


# -- made-up sessions ------------------------------------------------------------------------------


def shared_levels(data):
    """How many categories each item shares with the one before it."""
    out = []
    for s in data.sequences:
        ways = [data.paths[i] for i in s]
        out += [sum(a == b for a, b in zip(*pair, strict=True)) for pair in pairwise(ways)]
    return np.array(out)


def test_the_same_seed_gives_the_same_sessions_and_another_seed_others():
    assert (
        synthetic(seed=3).fingerprint() == synthetic(seed=3).fingerprint() != synthetic(seed=4).fingerprint()
    )


def test_sessions_have_the_lengths_asked_for_and_no_item_twice():
    data = synthetic(n_users=200, length=10)
    sizes = [len(s) for s in data.sequences]
    assert min(sizes) == 5 and max(sizes) == 15
    assert all(len(set(s.tolist())) == len(s) for s in data.sequences)
    assert len(data.test.targets) == 200
    crowded = synthetic(n_users=20, n_items=60, branching=2, depth=5, strength=1.0, length=20)
    assert all(len(set(s.tolist())) == len(s) for s in crowded.sequences)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_steps_climb_as_the_strength_says(strength):
    data = synthetic(400, 4000, branching=2, depth=3, strength=strength, length=10, skew=0.0)
    near = [0.5, 0.25, 0.125, 0.125]  # levels climbed: 0, 1, 2, root
    same_leaf = strength * sum(p / 2**k for k, p in enumerate(near)) + (1 - strength) / 8
    same_half = strength * (sum(near[:3]) + near[3] / 2) + (1 - strength) / 2
    shared = shared_levels(data)
    error = 4 * 0.5 / np.sqrt(len(shared))
    assert abs((shared == 3).mean() - same_leaf) < error
    assert abs((shared >= 1).mean() - same_half) < error


def test_skew_makes_few_items_popular():
    flat, steep = (synthetic(400, 500, strength=0.0, skew=s).popular(25)[1].sum() for s in (0.0, 1.0))
    assert steep > 3 * flat


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 1.1}, "strength must be in"),
        ({"skew": -1}, "skew ≥ 0"),
        ({"n_users": 0}, "n_users must be at least 1"),
        ({"branching": 27}, "branching must be from 1 to 26"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"n_items": 80}, "n_items must be at least 81"),
        ({"length": 200}, "n_items must be at least 600"),
        ({"n_users": 10**6}, "at most 100,000,000"),
    ],
)
def test_bad_parameters_of_the_generator_are_refused(options, message):
    with pytest.raises(ParameterError, match=message):
        synthetic(**options)


def test_data_sets_are_loaded_by_name_and_unknown_names_refused():
    assert interactions.load().name == "synthetic"
    with pytest.raises(ParameterError, match="did you mean 'ml-100k'"):
        interactions.load("ml-100")
    with pytest.raises(ParameterError, match="source must be"):
        interactions.amazon_beauty("tiger")


def test_data_that_are_neither_here_nor_reachable_are_refused_in_a_sentence(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise OSError("no network")

    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    monkeypatch.setattr(registry, "_download", no_network)
    with pytest.raises(DataError, match="'ml-1m' could not be downloaded"):
        interactions.movielens_1m()


# -- the real files --------------------------------------------------------------------------------


def need(*names):
    if not os.environ.get("WORKBENCH_DATA"):
        pytest.skip("WORKBENCH_DATA is not set")
    missing = [n for n in names if registry.local(n) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not under WORKBENCH_DATA")


def ranks_by_popularity(data):
    """Rank of each test target by training count, ties by item number, among what the user has not had."""
    place = np.empty(data.n_items, dtype=np.int64)
    place[data.popular(data.n_items)[0]] = np.arange(data.n_items)
    pairs = zip(data.test.histories, data.test.targets, strict=True)
    return np.array([place[t] - (place[np.unique(h)] < place[t]).sum() for h, t in pairs])


REAL = {  # users, items, interactions; popularity HR@10 and NDCG@10, seen items masked
    "ml-100k": (["ml-100k", "ml-100k-items"], (943, 1_349, 99_287), (0.0870, 0.0452)),
    "ml-1m": (["ml-1m"], (6_040, 3_416, 999_611), (0.0369, 0.0180)),
    "amazon-beauty": (
        ["amazon-beauty", "amazon-beauty-attributes"],
        (22_363, 12_101, 198_502),
        (0.0115, 0.0055),
    ),
    "amazon-video-games": (["amazon-video-games"], (31_013, 23_715, 287_107), (0.0194, 0.0100)),
}


@pytest.mark.parametrize("name", REAL)
def test_real_data_have_the_published_counts_and_popularity_scores(name):
    files, counts, (hit, ndcg) = REAL[name]
    need(*files)
    data = interactions.load(name)
    assert (data.n_users, data.n_items, len(data)) == counts
    assert not any(t in h for h, t in zip(data.test.histories, data.test.targets, strict=True))
    if name == "amazon-video-games":  # the published scores leave out users with fewer than five reviews
        data = data.k_core(users=5, items=1)
        assert data.n_users == 29_341
    ranks = ranks_by_popularity(data)
    assert (ranks < 10).mean() == pytest.approx(hit, abs=6e-5)
    assert np.where(ranks < 10, 1 / np.log2(ranks + 2), 0).mean() == pytest.approx(ndcg, abs=6e-5)


def test_movielens_100k_is_whole_without_a_core_and_every_film_has_a_genre():
    need("ml-100k", "ml-100k-items")
    whole = interactions.movielens_100k(min_count=1)
    assert (whole.n_users, whole.n_items, len(whole)) == (943, 1_682, 100_000)
    assert whole.titles[whole.index("1")] == "Toy Story 1995"
    assert whole.attributes[0] == ("Animation", "Children's", "Comedy")
    assert all(whole.attributes)


def test_movielens_1m_titles_belong_to_its_items_and_training_pairs_are_as_many_as_recboles_samples():
    need("ml-1m", "ml-1m-items")
    data = interactions.movielens_1m()
    assert data.attributes[data.index("Toy Story (1995)")] == ("Animation", "Children's", "Comedy")
    assert len({a for own in data.attributes for a in own}) == 18
    assert sum(len(s) - 1 for s in data.train) == 981_491


def test_beauty_has_637_attributes_202_of_them_categories():
    need("amazon-beauty", "amazon-beauty-attributes")
    data = interactions.amazon_beauty()
    assert len({a for own in data.attributes for a in own}) == 637
    assert len({a for path in data.paths for a in path}) == 202


def test_the_beauty_file_of_bert4rec_has_its_counts():
    need("amazon-beauty-bert4rec")
    beauty = interactions.amazon_beauty("bert4rec")
    assert (beauty.n_users, beauty.n_items, len(beauty)) == (40_226, 54_542, 353_962)
