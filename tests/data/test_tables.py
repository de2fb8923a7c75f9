"""Data frames as numbers and back, and what is refused."""

import datetime
import json

import numpy as np
import pytest

from fex_jax.data import frames, table_sets, tables

pd = pytest.importorskip("pandas")

FRAME = pd.DataFrame(
    {
        "number": [1, 2, 3],
        "text": ["x", None, "y"],
        "category": pd.Categorical(["u", "v", "u"], categories=["v", "u", "w"]),
        "flag": [True, False, True],
        "gap": [1.5, np.nan, 2.0],
        "town_oslo": [0, 1, 0],
        "town_bonn": [1, 0, 1],
        "nullable": pd.array([1, None, 2], "Int64"),
        "maybe": pd.array([True, None, False], "boolean"),
    },
    index=["a", "b", "c"],
)


def test_there_and_back():
    """Breaks if a type, a category, a missing value or the order of columns is lost on the way."""
    columns = tables.Columns.of(FRAME)
    shuffled = FRAME[FRAME.columns[::-1]].assign(other=0)
    back = columns.decode(columns.encode(shuffled))
    pd.testing.assert_frame_equal(back, FRAME.reset_index(drop=True))
    stored = json.loads(json.dumps(columns.to_list()))
    assert tables.Columns.from_list(stored, "file") == columns
    with pytest.raises(ValueError, match="file: a column is"):
        tables.Columns.from_list([{"name": "x"}], "file")


@pytest.mark.parametrize(
    ("dtype", "given"),
    [
        ("int64", [0.5, 1.0]), ("int8", [300, -129]), ("uint8", [-1, 7]), ("int32", [2**40, 1]),
        ("float32", [0.1, 1e300]), ("Int64", [0.5, 2.0]), ("UInt8", [300, 1]),
        ("Float32", [0.1, 2]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("beside", [True, False])
def test_numbers_that_a_column_s_type_does_not_hold_reach_f_as_they_are(dtype, given, beside):
    """Breaks if f is asked about another row than is explained: 0 for 0.5, 44 for 300."""
    learned = pd.DataFrame({"x": pd.Series([1, 2], dtype=dtype)})
    if beside:
        learned["y"] = ["a", "b"]
    columns = tables.Columns.of(learned)
    back = columns.decode(columns.encode(learned.assign(x=given)))
    assert back["x"].tolist() == given
    assert columns.decode(columns.encode(learned))["x"].dtype == dtype


def test_groups_are_one_feature():
    """Breaks if one-hot codes are features of their own, or a group is not made as it is given."""
    source = tables.open_table(FRAME, {"both": ["number", "gap"]})
    found = dict(source.groups)
    assert found["town"] == (5, 6) and found["both"] == (0, 4) and found["text"] == (1,)
    loose = FRAME.assign(town_bonn=0)  # the second row is no code
    assert "town" not in dict(tables.open_table(loose).groups)
    for groups, message in (
        ({"g": ["no"]}, "group 'g' names the column 'no', which is not there"),
        ({"g": ["gap"], "h": ["gap"]}, "column 'gap' is in two groups"),
        ({"gap": ["number", "flag"]}, "group 'gap' has the name of a column"),
        ({"g": "gap"}, "group 'g' is 'gap'; expected a list of columns"),
        (["gap"], "expected a list of columns for each name"),
    ):
        with pytest.raises(ValueError, match=message):
            tables.open_table(FRAME, groups)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"date": pd.Timestamp("2020")}, "'date' is of type datetime64.*days since a date"),
        (
            {"day": datetime.date(2020, 1, 1)},
            "'day' holds date values; expected numbers made of it",
        ),
        ({"gap": np.inf}, "'gap' is infinite in row 0; expected finite numbers"),
        ({"text": [1, "x", "y"]}, "'text' holds int values among others"),
        ({"wave": 1j}, "'wave' is of type complex128"),
        ({"id": [2**60, 1, 2]}, "'id' holds 1152921504606846976, a whole number beyond"),
        ({"list": [[1], [2], [3]]}, r"'list' holds list values among others \(\[1\]\)"),
        (
            {"object": pd.Series([1, 2, 3], list("abc"), object)},
            "'object' holds numbers as objects",
        ),
        ({"part": pd.cut(FRAME["number"], 2)}, "'part' has the category Interval.*astype"),
    ],
)
def test_columns_that_cannot_be(change, message):
    """Breaks if a column that f or a network would misread is taken without a word."""
    with pytest.raises(ValueError, match=message):
        tables.open_table(FRAME.assign(**change))


def test_types_of_arrow_and_objects():
    """Breaks if f meets another type than its own, or NaN where it knows None."""
    arrow = pytest.importorskip("pyarrow")
    frame = pd.DataFrame(
        {
            "whole": pd.array([1, None, 3], "int64[pyarrow]"),
            "text": pd.array(["x", None, "y"], "string[pyarrow]"),
            "flag": pd.array([True, None, False], "bool[pyarrow]"),
            "none": pd.Series(["x", None, "y"], dtype=object),
            "nan": pd.Series(["x", np.nan, "y"], dtype=object),
            "truth": pd.Series([True, None, False], dtype=object),
            "empty": [np.nan] * 3,
            "nothing": pd.Series([None] * 3, dtype=object),
            "sparse": pd.arrays.SparseArray([0.0, 1.0, 0.0]),
        }
    )
    columns = tables.Columns.of(frame)
    back = columns.decode(columns.encode(frame))
    pd.testing.assert_frame_equal(back, frame)
    assert back["none"][1] is None and back["nan"][1] is not None
    decimals = frame[["whole"]].astype(pd.ArrowDtype(arrow.decimal128(22, 2)))
    with pytest.raises(ValueError, match="decimal128.*expected floats, as astype"):
        tables.open_table(decimals)


def test_names_of_columns():
    """Breaks if whole numbers are no names, or a name that is there twice is not said."""
    frame = pd.DataFrame(np.eye(3), columns=np.array([-1, 5, 7]))
    columns = tables.Columns.of(frame)
    assert columns.names == [-1, 5, 7] and all(type(name) is int for name in columns.names)
    np.testing.assert_array_equal(columns.encode(frame[[7, 5, -1]]), np.eye(3))
    assert tables.Columns.from_list(json.loads(json.dumps(columns.to_list())), "file") == columns
    with pytest.raises(ValueError, match="the table has the column 5 twice"):
        columns.encode(pd.concat([frame, frame[[5]]], axis=1))
    with pytest.raises(ValueError, match="the name 0.5; expected a string or a whole number"):
        tables.open_table(pd.DataFrame(np.eye(1), columns=np.array([0.5], object)))


@pytest.mark.parametrize(
    "given, message",
    [
        (FRAME[:0], "no rows to learn from"),
        (FRAME[[]], "no columns"),
        (pd.concat([FRAME, FRAME], axis=1), "the column 'number' twice"),
        (np.zeros(3), r"ndarray of shape \[3\] is no table"),
        ("nowhere.csv", "nowhere.csv is not there; expected a .csv"),
    ],
)
def test_no_tables(given, message):
    """Breaks if what is no table ends in another error than a sentence."""
    with pytest.raises(ValueError, match=message):
        tables.open_table(given)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"text": "z"}, "'text' has 'z' in row 0, which was not there.*'x', 'y'"),
        ({"number": "1"}, "'number' is of type str, and was of numbers"),
        ({"number": pd.Timestamp("2020")}, "'number' is of type datetime64.*, and was of numbers"),
        ({"number": None}, "'number' has a missing value in row 0, and had none"),
    ],
)
def test_rows_unlike_those_that_were_learned_from(change, message):
    """Breaks if a new category, type or gap is explained as if it were known."""
    with pytest.raises(ValueError, match=message):
        tables.Columns.of(FRAME).encode(FRAME.assign(**change))
    with pytest.raises(ValueError, match="lacks the columns 'number', 'gap'; it has 'text'"):
        tables.Columns.of(FRAME).encode(FRAME.drop(columns=["number", "gap"]))


def test_other_holders_of_tables(tmp_path):
    """Breaks if a file, an array or polars gives another table than pandas."""
    plain = FRAME[["number", "text", "gap"]].reset_index(drop=True)
    plain.to_csv(tmp_path / "table.csv", index=False)
    pd.testing.assert_frame_equal(frames.as_frame(tmp_path / "table.csv"), plain)
    array = frames.as_frame(np.eye(2))
    assert list(array.columns) == ["x0", "x1"] and array["x1"].tolist() == [0, 1]
    with pytest.raises(ValueError, match="the array has 2 columns; expected 3"):
        frames.as_frame(np.eye(2), ["a", "b", "c"])
    masked = np.ma.masked_array([[1, 2], [3, 4]], [[False, True], [False, False]])
    assert np.isnan(frames.as_frame(masked)["x1"][0])
    arrow = pytest.importorskip("pyarrow").table({"a": [1, 2]})
    assert list(frames.as_frame(arrow).columns) == ["a"]
    plain.to_parquet(tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(frames.as_frame(tmp_path / "table.parquet"), plain)
    polars = pytest.importorskip("polars")
    given = {
        "a": [1, 2],
        "b": ["x", None],
        "c": polars.Series(["v", "u"], dtype=polars.Enum("uvw")),
    }
    found = tables.Columns.of(frames.as_frame(polars.DataFrame(given)))
    assert [c.categories for c in found] == [None, ("x",), ("u", "v", "w")] and found[1].missing


def test_stream_mixes_rows_and_continues():
    """Breaks if a resumed run sees other rows, or a mixed row holds half of a group."""
    source = tables.open_table(FRAME.drop(columns=["text", "gap", "nullable", "maybe"]))
    options = {"batch_size": 8, "seed": 1, "mix": 0.5}
    stream = table_sets.train_stream(source, **options)
    batches = [next(stream) for _ in range(3)]
    np.testing.assert_array_equal(
        next(table_sets.train_stream(source, **options, start=2)), batches[2]
    )
    names = source.columns.names
    town = [names.index("town_oslo"), names.index("town_bonn")]
    assert (batches[0][:, town].sum(1) == 1).all()
    plain = next(table_sets.train_stream(source, 3, 1))
    np.testing.assert_array_equal(np.sort(plain, 0), np.sort(source.values, 0))


def test_a_config_makes_its_predictor_of_the_path_that_a_flag_gives(tmp_path):
    """Breaks if a model is fitted on another file than the explainer, or a gap is lost."""
    from configs import tables_nhanes
    from fex_jax.training.opening import open_predictor

    rng = np.random.default_rng(0)
    rows = pd.DataFrame(rng.normal(size=(60, 2)), columns=["age", "pulse"])
    rows.loc[::7, "pulse"] = np.nan
    rows.to_csv(tmp_path / "nhanes_X.csv")
    pd.DataFrame({"y": rng.normal(size=60)}).to_csv(tmp_path / "nhanes_y.csv")
    config = tables_nhanes.get_config()
    config.data.path = str(tmp_path)
    source = table_sets.open_source(config.data.name, "train", config.data.path)
    f = open_predictor(config)
    assert source.columns.names == ["age", "pulse"] and source.columns[1].missing
    assert np.isfinite(f(source.columns.decode(source.values))).all()


def test_data_sets_by_name(tmp_path):
    """Breaks if a split overlaps the other, or a wrong name or option is not said."""
    parts = [table_sets.open_source("breast_cancer", split, "") for split in ("train", "test")]
    assert [part.size for part in parts] == [456, 113]
    FRAME.to_csv(tmp_path / "t.csv")
    own = table_sets.open_source("table", "train", str(tmp_path / "t.csv"), "maybe, text")
    assert "maybe" not in own.columns.names and own.size == 3
    for options, message in (
        (("wine", "train", ""), "data.name is 'wine'; of tables choose"),
        (("breast_cancer", "dev", ""), "the split is 'dev'"),
        (("breast_cancer", "train", "", "price"), "table.drop names 'price'"),
        (("breast_cancer", "train", "", "", "{"), "table.groups is '{', no JSON"),
        (("adult", "train", "no.data"), "adult: there is no file 'no.data'"),
        (("nhanes", "train", str(tmp_path)), "nhanes: there is no file .*nhanes_X.csv'; give"),
        (("california", "train", str(tmp_path)), "california: its file is not there, and nothing"),
    ):
        with pytest.raises(ValueError, match=message):
            table_sets.open_source(*options)


def test_columns_are_those_that_f_was_fitted_on():
    """Breaks if f, which may read columns by place as LightGBM does, gets them in the table's
    order, or one that is missing is not said."""
    frame = pd.DataFrame(np.arange(9.0).reshape(3, 3), columns=["c", "a b", "other"])
    source = tables.open_table(frame, names=["a_b", "c"])  # as LightGBM keeps the names
    assert source.columns.names == ["a b", "c"]
    np.testing.assert_array_equal(np.sort(source.values, 0), [[1, 0], [4, 3], [7, 6]])
    both = frame.rename(columns={"other": "a_b"})
    assert tables.open_table(both, names=["a_b", "c"]).columns.names == ["a_b", "c"]
    with pytest.raises(ValueError, match="lacks 'd', which the predictor takes; it has 'c', 'a b'"):
        tables.open_table(frame, names=["d", "c"])


def test_what_is_nearly_a_table():
    """Breaks if it is not said what to do with a series, a sparse matrix or a lazy frame."""
    sparse = pytest.importorskip("scipy.sparse")
    for given, message in (
        (
            FRAME["number"],
            r"Series of shape \[3\] is no table: .*; of a frame one row is frame\[:1",
        ),
        (sparse.eye(3), r"_matrix of shape \[3, 3\] is no table: .*; its toarray\(\) is one"),
        ({"a": [1]}, r"dict of shape \[\] is no table: .*; pandas.DataFrame of it is one"),
    ):
        with pytest.raises(ValueError, match=message):
            frames.as_frame(given)
    polars = pytest.importorskip("polars")
    with pytest.raises(ValueError, match=r"LazyFrame .* is no table: .*; its collect\(\) is one"):
        frames.as_frame(polars.DataFrame({"a": [1]}).lazy())
