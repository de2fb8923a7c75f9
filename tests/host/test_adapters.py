"""Each adapter on the real library, against that library's own answer or one by hand."""

import pickle

import numpy as np
import pytest

from fex_jax import host
from fex_jax.host import HostError

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(60, 4))
CLASS = np.array(["x", "y", "z"])[np.digitize(TABLE[:, 0], [-0.5, 0.5])]
IMAGES = RNG.integers(0, 256, (5, 6, 6, 3)).astype(np.uint8)
TEXTS = ["a good film", "a dull film", "good fun", "not good", "dull and long", "great fun"] * 3
MOOD = ["good", "bad", "good", "bad", "bad", "good"] * 3


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


# scikit-learn and what follows it


def test_scikit_learn_classifiers_and_pipelines_of_texts():
    """Breaks if classes are named in another order, or a pipeline gets no strings."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from fex_jax.host.estimator import estimator

    model = LogisticRegression().fit(TABLE, CLASS)
    predictor = estimator(model)
    assert predictor.labels == ("x", "y", "z") and predictor.input == (4,)
    np.testing.assert_allclose(predictor(TABLE), model.predict_proba(TABLE), atol=1e-6)
    again, other = estimator(model), estimator(LogisticRegression(C=9.0).fit(TABLE, CLASS))
    assert predictor.digest == again.digest != other.digest
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, MOOD)
    predictor = estimator(pipeline, input="text")
    assert predictor.labels == ("bad", "good")
    np.testing.assert_allclose(predictor(TEXTS), pipeline.predict_proba(TEXTS), atol=1e-6)


def test_scikit_learn_regression_and_several_labels():
    """Breaks if a regression is held to probabilities, a forest's list of labels is not read, or
    numbers of clusters or outliers are explained as a regression's values."""
    from sklearn.ensemble import IsolationForest, RandomForestClassifier
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.mixture import GaussianMixture
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.multioutput import ClassifierChain
    from sklearn.naive_bayes import GaussianNB
    from sklearn.svm import LinearSVC

    from fex_jax.host.estimator import estimator

    model = LinearRegression().fit(TABLE, 1000 * TABLE[:, 1])
    np.testing.assert_allclose(estimator(model)(TABLE)[:, 0], 1000 * TABLE[:, 1], atol=1e-3)
    several = TABLE[:, :2] > 0
    forest = RandomForestClassifier(5, random_state=0).fit(TABLE, several)
    predictor = estimator(forest, labels=("first", "second"))
    expected = np.stack([p[:, 1] for p in forest.predict_proba(TABLE)], -1)
    np.testing.assert_allclose(predictor(TABLE), expected, atol=1e-6)
    assert predictor.output == "sigmoid"
    rest = OneVsRestClassifier(GaussianNB()).fit(TABLE, several)
    with pytest.raises(HostError, match="sum to"):
        estimator(rest)(TABLE)
    np.testing.assert_allclose(
        estimator(rest, output="sigmoid")(TABLE), rest.predict_proba(TABLE), atol=1e-6
    )
    with pytest.raises(ValueError, match="LinearSVC has no predict_proba; wrap it"):
        estimator(LinearSVC().fit(TABLE, CLASS))
    chain = ClassifierChain(LogisticRegression()).fit(TABLE, several)
    np.testing.assert_allclose(estimator(chain)(TABLE), chain.predict_proba(TABLE), atol=1e-6)
    for grouping in (IsolationForest(n_estimators=2), GaussianMixture(2)):
        with pytest.raises(ValueError, match="is neither a classifier nor a regressor"):
            estimator(grouping.fit(TABLE))
    with pytest.raises(ValueError, match="GaussianNB does not say what it takes"):
        estimator(GaussianNB())
    with pytest.raises(ValueError, match=r"GaussianNB is a class: give .* GaussianNB\(\).fit\("):
        estimator(GaussianNB)


def test_an_estimator_keeps_its_digest_whatever_became_of_it():
    """Breaks if paid answers are refused after f was asked, or was stored and opened again; if two
    models share them; or if a grid search or a lambda within cannot be opened."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    from fex_jax.host.estimator import estimator

    def words(*stop):
        return make_pipeline(CountVectorizer(stop_words=list(stop)), LogisticRegression())

    def grid(c):
        return GridSearchCV(LogisticRegression(), {"C": [c]}, cv=2)

    texts, table = (TEXTS, MOOD), (TABLE, CLASS)
    for one, other, (things, classes) in (
        (words("and"), words("not"), texts),
        (KNeighborsClassifier(5), KNeighborsClassifier(4), table),
        (
            RandomForestClassifier(2, random_state=0),
            RandomForestClassifier(2, random_state=1),
            table,
        ),
        (LogisticRegression(), LogisticRegression(C=2.0), table),
        (grid(1.0), grid(2.0), table),
    ):
        given = "text" if things is TEXTS else (4,)
        model, asked = one.fit(things, classes), pickle.loads(pickle.dumps(one))
        asked.predict_proba(things)
        f = estimator(model, input=given)
        again = [pickle.loads(pickle.dumps(asked)), asked]
        assert f.digest and {estimator(m, input=given).digest for m in again} == {f.digest}
        assert estimator(other.fit(things, classes), input=given).digest != f.digest
    nameless = make_pipeline(FunctionTransformer(lambda x: x), LogisticRegression()).fit(*table)
    assert estimator(nameless).digest == "" and estimator(nameless, digest="own").digest == "own"
    np.testing.assert_allclose(
        estimator(nameless)(TABLE), LogisticRegression().fit(*table).predict_proba(TABLE), atol=1e-6
    )


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_gradient_boosting(library):
    """Breaks if XGBoost's or LightGBM's classifiers are not asked as scikit-learn's."""
    module = pytest.importorskip(library)
    from fex_jax.host.estimator import estimator

    maker = {"xgboost": "XGBClassifier", "lightgbm": "LGBMClassifier"}[library]
    quiet = {"verbosity": 0} if library == "xgboost" else {"verbose": -1, "min_child_samples": 2}
    numbers = np.searchsorted(["x", "y", "z"], CLASS)
    model = getattr(module, maker)(n_estimators=4, n_jobs=1, **quiet).fit(TABLE, numbers)
    predictor = estimator(model)
    assert predictor.labels == ("0", "1", "2") and predictor.input == (4,)
    np.testing.assert_allclose(predictor(TABLE), model.predict_proba(TABLE), atol=1e-6)


# PyTorch


def test_torch_modules():
    """Breaks if axes, normalisation, evaluation mode or softmax are not as stated: NumPy's here."""
    torch = pytest.importorskip("torch")
    from fex_jax.host.torch_module import torch_module

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = torch.nn.Dropout(0.9)
            self.head = torch.nn.Linear(3 * 36, 4)

        def forward(self, x):
            return self.head(self.drop(x.flatten(1)))

    torch.manual_seed(0)
    net = Net()
    settings = {"labels": list("abcd"), "input": (6, 6, 3), "mean": (0.1, 0.2, 0.3), "std": 0.5}
    predictor = torch_module(net, **settings)
    x = ((IMAGES / 255 - [0.1, 0.2, 0.3]) / 0.5).transpose(0, 3, 1, 2).reshape(5, -1)
    weight, bias = (p.detach().numpy() for p in net.head.parameters())
    np.testing.assert_allclose(predictor(IMAGES), softmax(x @ weight.T + bias), atol=1e-5)
    assert torch_module(net, **settings).digest == predictor.digest
    assert torch_module(net, **settings | {"std": 1.0}).digest != predictor.digest
    head = torch.nn.Linear(4, 1)
    rows = torch_module(head, labels=("no", "yes"), input=(4,))(TABLE)
    z = TABLE @ head.weight.detach().numpy()[0] + head.bias.item()
    np.testing.assert_allclose(rows[:, 1], 1 / (1 + np.exp(-z)), atol=1e-5)


def test_torch_modules_of_another_type_or_mode_and_what_they_answer():
    """Breaks if weights of 16 or 64 bits refuse pixels, a module that is trained again answers by
    chance, what answers beside logits is a traceback, or modules that differ in
    what is no tensor share a digest."""
    torch = pytest.importorskip("torch")
    from fex_jax.host.torch_module import torch_module

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.head = torch.nn.Dropout(0.5), torch.nn.Linear(4, 3)
            self.answer, self.scale = lambda z: z, 1.0

        def forward(self, x):
            return self.answer(self.head(self.drop(x)))

        def get_extra_state(self):  # no tensor, as packed weights of quantised layers are none
            return {"scale": self.scale}

        def set_extra_state(self, state):
            self.scale = state["scale"]

    torch.manual_seed(0)
    net, given = Net(), {"labels": list("abc"), "input": (4,)}
    weight, bias = (p.detach().numpy().astype(float) for p in net.head.parameters())
    expected = softmax(TABLE @ weight.T + bias)
    predictor = torch_module(net, **given)
    net.train()
    np.testing.assert_allclose(predictor(TABLE), expected, atol=1e-6)
    for dtype, near in ((torch.float16, 5e-3), (torch.bfloat16, 5e-2), (torch.float64, 1e-6)):
        other = Net()
        other.load_state_dict(net.state_dict())
        found = torch_module(other.to(dtype), **given)(TABLE)
        np.testing.assert_allclose(found, expected, atol=near)
    net.answer = lambda z: {"logits": z, "other": 0}
    np.testing.assert_allclose(predictor(TABLE), expected, atol=1e-6)
    net.answer = lambda z: (z, 0)
    with pytest.raises(HostError, match="Net answers with a tuple; wanted a tensor, or what holds"):
        predictor(TABLE)

    digest = torch_module(net, **given).digest
    assert torch_module(net, **given).digest == digest
    net.scale = 2.0
    assert torch_module(net, **given).digest != digest


# ONNX


def onnx_file(path, batch, layout, kind="FLOAT", outputs=1):
    """Flatten, then a matrix product: its weights, to check it by hand."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    weight = (RNG.normal(size=(108, 4)) / 10).astype(np.float32)
    sizes = [batch, 3, 6, 6] if layout == "NCHW" else [batch, 6, 6, 3]
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["f"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["z"]),
        helper.make_node("Neg", ["z"], ["z1"]),
    ]
    given = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, 4]) for n in ("z", "z1")]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", getattr(TensorProto, kind), sizes)],
        given[:outputs], [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return weight


@pytest.mark.parametrize(
    ("batch", "layout", "kind"),
    [("n", "NCHW", "FLOAT"), (2, "NHWC", "FLOAT"), (1, "NCHW", "UINT8"), ("n", "NHWC", "FLOAT16")],
)
def test_onnx_files(tmp_path, batch, layout, kind):
    """Breaks if order of axes, fixed batch, or type are not read from the file."""
    weight = onnx_file(tmp_path / "m.onnx", batch, layout, kind)
    predictor = host.open(tmp_path / "m.onnx", labels=list("abcd"), mean=0.5, std=0.25)
    x = IMAGES.astype(float) if kind == "UINT8" else (IMAGES / 255 - 0.5) / 0.25
    x = x.transpose(0, 3, 1, 2) if layout == "NCHW" else x
    tolerance = 2e-2 if kind == "FLOAT16" else 1e-4
    expected = softmax(x.reshape(5, -1) @ weight)
    np.testing.assert_allclose(predictor(IMAGES), expected, atol=tolerance)
    assert predictor.fixed == isinstance(batch, int) and predictor.input == (6, 6, 3)
    assert predictor.digest != host.open(tmp_path / "m.onnx", mean=0.4, std=0.25).digest


def test_the_input_that_is_given_is_one_that_the_file_takes(tmp_path):
    """Breaks if another size, or channels first, is taken without a word."""
    onnx_file(tmp_path / "m.onnx", "n", "NCHW")
    assert host.open(tmp_path / "m.onnx", input=[6, 6, 3]).input == (6, 6, 3)
    for wrong in ((8, 8, 3), (3, 6, 6), (6, 6), "text"):
        with pytest.raises(ValueError, match=r"m.onnx takes \(6, 6, 3\)"):
            host.open(tmp_path / "m.onnx", input=wrong)


def test_onnx_sessions_and_files_that_are_none(tmp_path):
    """Breaks if a session is not taken, an output is guessed, or damage is a traceback."""
    weight = onnx_file(tmp_path / "m.onnx", "n", "NHWC", outputs=2)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    from fex_jax.host.onnx import onnx

    with pytest.raises(ValueError, match="wanted one output of floats"):
        onnx(session)
    predictor = onnx(session, answer="z1", output="value", digest="mine")
    expected = -(IMAGES / 255).reshape(5, -1) @ weight
    np.testing.assert_allclose(predictor(IMAGES), expected, atol=1e-4)
    assert predictor.labels[3] == "class 3" and predictor.digest == "mine"
    content = (tmp_path / "m.onnx").read_bytes()
    (tmp_path / "half.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="half.onnx is no network that ONNX Runtime reads"):
        host.open(tmp_path / "half.onnx")


def test_an_onnx_file_of_probabilities_is_not_taken_for_one_of_logits(tmp_path):
    """Breaks if softmax is taken of probabilities: f would be nearly flat, and no one would know.
    Breaks if what is said of the answers is not believed, or logits are refused."""
    onnx_file(tmp_path / "m.onnx", "n", "NHWC")
    import onnx

    model = onnx.load(tmp_path / "m.onnx")
    expected = host.open(tmp_path / "m.onnx", labels=list("abcd"))(IMAGES)
    model.graph.node.insert(3, onnx.helper.make_node("Softmax", ["z"], ["p"]))
    model.graph.output[0].name = "p"
    onnx.save(model, tmp_path / "p.onnx")
    with pytest.raises(HostError, match="p.onnx answers numbers that sum to 1"):
        host.open(tmp_path / "p.onnx", labels=list("abcd"))(IMAGES)
    got = host.open(tmp_path / "p.onnx", labels=list("abcd"), output="softmax")(IMAGES)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    got = host.open(tmp_path / "p.onnx", output="logits")(IMAGES)
    np.testing.assert_allclose(got, softmax(expected), atol=1e-6)
    logits = host.open(tmp_path / "m.onnx", output="value")(IMAGES)
    model.graph.node[3].op_type = "Sigmoid"
    onnx.save(model, tmp_path / "s.onnx")
    with pytest.raises(HostError, match="s.onnx answers numbers from 0 to 1 .*output='sigmoid'"):
        host.open(tmp_path / "s.onnx")(IMAGES)
    got = host.open(tmp_path / "s.onnx", output="sigmoid")(IMAGES)
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_an_onnx_file_and_labels_of_another_number(tmp_path):
    """Breaks if a wrong list of labels is first found out when the file is asked, or one column
    is taken for a logit where it may be a probability."""
    onnx_file(tmp_path / "m.onnx", "n", "NHWC")
    import onnx

    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    with pytest.raises(ValueError, match="m.onnx answers 4 numbers, and there are 3 labels"):
        host.open(tmp_path / "m.onnx", labels=str(tmp_path / "labels.txt"))
    model = onnx.load(tmp_path / "m.onnx")
    ends = [onnx.numpy_helper.from_array(np.array(n), k) for n, k in (([0], "s"), ([1], "e"))]
    model.graph.initializer.extend(ends)
    axis = onnx.numpy_helper.from_array(np.array([1]), "axis")
    model.graph.initializer.append(axis)
    model.graph.node.append(onnx.helper.make_node("Slice", ["z", "s", "e", "axis"], ["one"]))
    model.graph.output[0].name = "one"
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(model, tmp_path / "one.onnx")
    with pytest.raises(ValueError, match="one.onnx answers one number for two classes"):
        host.open(tmp_path / "one.onnx", labels=("no", "yes"))
    found = host.open(tmp_path / "one.onnx", labels=("no", "yes"), output="logits")(IMAGES)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)
