"""The server, asked over HTTP, beside the explainer in this process."""

import base64
import concurrent.futures
import contextlib
import dataclasses
import http.client
import io
import json
import time

import numpy as np
import pytest
from PIL import Image

from fex_jax import explain, tokens

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

from fex_jax.serve import Limits  # noqa: E402
from tests.serve.serving import served, text_explainer  # noqa: E402

PICTURES = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
TEXTS = ["a funny film , very good !", "dull plot ."]


@pytest.fixture(scope="module")
def explainer():
    return explain.load("models/digits_fex")


@pytest.fixture(scope="module")
def port(explainer):
    with served(explainer, Limits(megabytes=1, things=4, batch=2)) as port:
        yield port


@pytest.fixture(scope="module")
def texts():
    return text_explainer()


@pytest.fixture(scope="module")
def texts_port(texts):
    with served(texts) as port:
        yield port


def call(port, path, body=None, **headers):
    """Status and what the answer says."""
    given = {"Content-Type": "application/json"} | {
        k.replace("_", "-"): v for k, v in headers.items()
    }
    content = body if body is None or isinstance(body, bytes) else json.dumps(body)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as line:
        line.request("GET" if body is None else "POST", path, content, given)
        response = line.getresponse()
        text = response.read().decode()
    is_json = response.getheader("content-type", "").startswith("application/json")
    return response.status, json.loads(text) if is_json else text


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_pictures_are_explained_as_by_the_explainer(port, explainer):
    """Breaks if a picture is decoded, resized or explained otherwise than in Python, or a class
    named by its label is another one."""
    large = np.random.default_rng(1).integers(0, 256, (50, 70, 3), np.uint8)
    status, answer = call(port, "/explain", {"images": [png(large)], "top_k": 3, "show": True})
    assert status == 200
    (found,) = answer["explanations"]
    expected = explainer(Image.fromarray(large), top_k=3)
    np.testing.assert_allclose(found["probabilities"], expected.probabilities[0], atol=1e-5)
    for one, target, maps in zip(
        found["classes"], expected.targets[0], expected.attributions[0], strict=True
    ):
        assert (one["target"], one["label"]) == (target, expected.labels[target])
        np.testing.assert_allclose(one["attributions"], maps, atol=1e-5)
    # What is shown comes back as it is, and arrays of the right size are taken as they are.
    again = {"images": [found["picture"]], "targets": [expected.labels[7]], "shown": True}
    _, answer = call(port, "/explain", again)
    own = explainer(explainer.picture(Image.fromarray(large)), 7)
    (one,) = answer["explanations"][0]["classes"]
    np.testing.assert_allclose(one["logits"], own.logits[0], atol=1e-4)
    _, answer = call(port, "/explain", {"images": [PICTURES[0].tolist()], "targets": 7})
    (one,) = answer["explanations"][0]["classes"]
    np.testing.assert_allclose(one["logits"], explainer(PICTURES[0], 7).logits[0], atol=1e-4)


def test_many_at_once_get_their_own(port, explainer):
    """Breaks if requests that are explained together get each other's maps, or one that cannot be
    used spoils the others."""
    expected = explainer(PICTURES).attributions
    broken = {"images": [base64.b64encode(b"no picture").decode()]}

    def ask(i):
        return call(port, "/explain", {"images": [png(PICTURES[i % 4])]} if i % 5 else broken)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(20)))
    for i, (status, answer) in enumerate(answers):
        assert status == (200 if i % 5 else 400)
        if i % 5:
            found = answer["explanations"][0]["classes"][0]["attributions"]
            np.testing.assert_allclose(found, expected[i % 4], atol=1e-5)
        else:
            assert answer["error"].startswith("images[0] cannot be read as an image")


def test_what_f_says_as_patches_go(port, explainer):
    """Breaks if other patches go than the map's strongest, or f's answer is about another picture:
    here patches are made grey by hand."""
    body = {"image": png(PICTURES[1]), "target": 3, "classes": [3, 5]}
    status, answer = call(port, "/removal", body)
    assert status == 200
    logits = explainer(PICTURES[1], 3).logits.ravel()
    order = np.array(answer["order"])
    assert (np.diff(logits[order]) <= 1e-5).all()
    pixels = np.repeat(PICTURES[1:2], 3, 0).astype(np.float32)
    for picture, share in zip(pixels, (0, 0.5, 1), strict=True):
        for cell in order[: round(64 * share)]:
            row, column = divmod(int(cell), 8)
            picture[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 127.5
    said = np.asarray(explainer.answers(pixels))[:, [3, 5]]
    np.testing.assert_allclose(np.array(answer["probabilities"])[[0, 5, 10]], said, atol=1e-5)


def test_kserve(port, explainer):
    """Breaks if tensors are read or written in another order or shape than the protocol's."""
    shape = [2, 64, 64, 3]
    pixels = {"name": "pixels", "shape": shape, "datatype": "UINT8"}
    pixels["data"] = PICTURES[:2].ravel().tolist()
    classes = {"name": "classes", "shape": [2], "datatype": "BYTES", "data": ["4", "5"]}
    status, answer = call(port, "/v2/models/mine/explain", {"id": "7", "inputs": [pixels, classes]})
    assert (status, answer["id"], answer["model_name"]) == (200, "7", "mine")
    outputs = {one["name"]: np.reshape(one["data"], one["shape"]) for one in answer["outputs"]}
    expected = explainer(PICTURES[:2], [4, 5])
    np.testing.assert_allclose(outputs["attributions"], expected.attributions, atol=1e-5)
    np.testing.assert_allclose(outputs["probabilities"], expected.probabilities, atol=1e-5)
    np.testing.assert_array_equal(outputs["targets"], [4, 5])
    pixels["shape"] = [2, 64, 64, 4]
    status, answer = call(port, "/v2/models/mine/infer", {"inputs": [pixels]})
    assert status == 400 and "its data has no shape" in answer["error"]
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/mine/versions/1"):
        assert call(port, path)[0] == 200
    for path in ("/v2/models/mine/ready", "/v2/models/mine/versions/1/ready"):
        assert call(port, path) == (200, {"name": "mine", "ready": True})


def fits(tensor, described):
    """Whether a tensor is as the metadata says."""
    sizes = zip(tensor["shape"], described["shape"], strict=True)
    return tensor["datatype"] == described["datatype"] and all(b in (-1, a) for a, b in sizes)


@pytest.mark.parametrize("of", ["pictures", "texts"])
def test_kserve_metadata(request, of):
    """Breaks if a client that asks what the model takes and gives is told nothing, or tensors come
    back under other names, datatypes or shapes than it was told."""
    port = request.getfixturevalue({"pictures": "port", "texts": "texts_port"}[of])
    given = {"pictures": [png(PICTURES[0])], "texts": TEXTS[:1]}[of]
    status, about = call(port, "/v2/models/mine")
    assert (status, about["name"], about["versions"]) == (200, "mine", ["1"])
    first, *others = about["inputs"]
    names = {"pictures": ["images", "pixels"], "texts": ["texts"]}[of]
    assert [one["name"] for one in about["inputs"]] == [*names, "classes"]
    assert (first["datatype"], first["shape"]) == ("BYTES", [-1])
    tensor = {"name": first["name"], "datatype": "BYTES", "shape": [1], "data": given}
    status, answer = call(port, "/v2/models/mine/versions/1/infer", {"inputs": [tensor]})
    assert status == 200
    for found, described in zip(answer["outputs"], about["outputs"], strict=True):
        assert found["name"] == described["name"] and fits(found, described)
    column = tensor | {"shape": [1, 1]}  # as clients of batching servers send strings
    assert call(port, "/v2/models/mine/infer", {"inputs": [column]}) == (200, answer)
    deep = tensor | {"shape": [1, 1, 1]}
    status, said = call(port, "/v2/models/mine/infer", {"inputs": [deep]})
    assert status == 400
    assert said["error"].startswith(f"{names[0]}: shape is [1, 1, 1]; expected [-1] or [-1, 1]")


def test_kserve_outputs_are_those_asked_for(port):
    """Breaks if a client gets tensors that it did not ask for, or asks for none that there is and
    is not told."""
    tensor = {"name": "images", "shape": [1], "datatype": "BYTES", "data": [png(PICTURES[0])]}
    wanted = [{"name": "targets"}, {"name": "attributions", "parameters": {}}]
    status, answer = call(port, "/v2/models/mine/infer", {"inputs": [tensor], "outputs": wanted})
    assert status == 200
    assert [one["name"] for one in answer["outputs"]] == ["targets", "attributions"]
    for wrong in ([{"name": "nope"}], [{}], ["targets"], "targets", 0):
        given = {"inputs": [tensor], "outputs": wrong}
        status, answer = call(port, "/v2/models/mine/infer", given)
        assert status == 400 and answer["error"].startswith("outputs: ")


@pytest.mark.parametrize(
    "path, body, headers, status, reason",
    [
        ("/explain", {"images": []}, {}, 400, "images: expected a list"),
        ("/explain", {"images": [1]}, {}, 400, r"images[0] is no picture"),
        ("/explain", {"images": ["AAAA"] * 5}, {}, 400, "5 images; at most 4 a request"),
        ("/explain", {"images": ["AAAA"], "top_k": 9}, {}, 400, "top_k is 9; expected an integer"),
        ("/explain", {"pictures": []}, {}, 400, "'pictures' is unknown; expected images"),
        ("/explain", {"images": [PICTURES[0].tolist()], "targets": "cat"}, {}, 400, "unknown; cl"),
        ("/explain", b"{", {}, 400, "Expecting property name"),
        ("/explain", b"[" * 100_000, {}, 400, ""),
        ("/explain", b" " * (2**20 + 1), {}, 413, "more than 1 MiB"),
        ("/explain", {}, {"Content_Type": "text/plain"}, 415, "expected Content-Type"),
        ("/model", None, {"Host": "elsewhere.example"}, 400, "Invalid host header"),
        ("/explain", {"images": [PICTURES[0].tolist()], "show": "no"}, {}, 400, "show is 'no'"),
        ("/explain", '{"images": ["é"]}'.encode("latin1"), {}, 400, "expected JSON in UTF-8: "),
        ("/explain", b"", {}, 400, "expected JSON in UTF-8: "),
        ("/v2/models/other/infer", {}, {}, 404, "there is nothing at /v2/models/other/infer"),
        ("/v2/models/mine/versions/2/ready", None, {}, 404, "there is nothing at /v2/models/mine/"),
        ("/v2/models/mine/infer", None, {}, 405, "/v2/models/mine/infer takes no GET"),
        ("/v2/models/mine", {}, {}, 405, "/v2/models/mine takes no POST"),
        ("/v2/models/mine/infer", {"inputs": 3}, {}, 400, "expected images or pixels"),
    ],
)  # fmt: skip
def test_bad_requests_are_refused(port, path, body, headers, status, reason):
    """Breaks if a request that cannot be used ends in a 500, is answered, or is asked by a page
    of another site."""
    found, answer = call(port, path, body, **headers)
    assert found == status
    assert list(answer) == ["error"] and reason in answer["error"]


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"datatype": ["UINT8"]}, "pixels: datatype is ['UINT8']; expected BYTES, or integers"),
        ({"data": [0.5, 1, 2]}, "datatype is UINT8, but its data are not all whole numbers"),
        ({"data": ["1", "2", "3"]}, "datatype is UINT8, but its data are not all whole numbers"),
        ({"data": [float("nan"), 1, 2]}, "its data are not all whole numbers"),
        ({"data": [[1], [2, 3]]}, "pixels: its data has no shape [1, 1, 1, 3]"),
        ({"datatype": "BYTES"}, "datatype is BYTES, but its data are not all strings"),
        ({"again": True}, "inputs: pixels is there twice"),
    ],
)
def test_tensors_are_what_they_say(port, change, reason):
    """Breaks if a number is cut off or read from a string without a word, or ends in a 500."""
    tensor = {"name": "pixels", "shape": [1, 1, 1, 3], "datatype": "UINT8", "data": [0, 1, 2]}
    inputs = [tensor | change] * (2 if "again" in change else 1)
    status, answer = call(port, "/v2/models/mine/infer", {"inputs": inputs})
    assert status == 400 and reason in answer["error"]


def test_a_fault_of_the_server_is_said_as_json(explainer):
    """Breaks if a client that reads JSON gets plain text where the server itself fails."""
    with served(dataclasses.replace(explainer, params={})) as port:
        status, answer = call(port, "/explain", {"images": [PICTURES[0].tolist()]})
    assert status == 500 and answer["error"].startswith("the server has failed (")


def test_what_http_leaves_open(port, caplog):
    """Breaks if a type of content has to be in small letters, half of a character is sent back
    into an answer, or a client that hangs up leaves a traceback."""
    body = {"images": [PICTURES[0].tolist()]}
    assert call(port, "/explain", body, Content_Type="Application/JSON; charset=utf-8")[0] == 200
    tensor = {"name": "pixels", "shape": [1, 64, 64, 3], "datatype": "UINT8"}
    tensor["data"] = PICTURES[0].ravel().tolist()
    half = {"id": "\ud800", "inputs": [tensor]}
    status, answer = call(port, "/v2/models/mine/infer", half)
    assert status == 400 and "half of a surrogate pair" in answer["error"]
    line = http.client.HTTPConnection("127.0.0.1", port)
    line.putrequest("POST", "/explain")
    line.putheader("Content-Type", "application/json")
    line.putheader("Content-Length", "50")
    line.endheaders(b"{")
    counted = 'fex_requests_total{path="/explain",status="400"}'
    before = float((call(port, "/metrics")[1] + f"{counted} 0").split(counted)[1].split()[0])
    line.close()
    for _ in range(500):
        after = float((call(port, "/metrics")[1] + f"{counted} 0").split(counted)[1].split()[0])
        if after > before:
            break
        time.sleep(0.01)
    assert after == before + 1 and not caplog.records


def test_metrics_count(port):
    """Breaks if an operator cannot see what the server does."""
    call(port, "/explain", {"images": [PICTURES[0].tolist()]})
    before = call(port, "/metrics")[1]
    call(port, "/explain", {"images": [PICTURES[0].tolist()] * 2})
    after = call(port, "/metrics")[1]

    def value(text, name):
        return float(next(line for line in text.split("\n") if line.startswith(name)).split()[-1])

    assert value(after, "fex_explained_total") == value(before, "fex_explained_total") + 2
    requests = 'fex_requests_total{path="/explain",status="200"}'
    assert value(after, requests) == value(before, requests) + 1
    assert value(after, "fex_request_seconds_count") > value(before, "fex_request_seconds_count")


def test_texts(texts_port, texts):
    """Breaks if words, their scores or f's answers without some are another text's."""
    status, answer = call(texts_port, "/explain", {"texts": TEXTS, "top_k": 2})
    assert status == 200
    for found, expected in zip(answer["explanations"], texts(TEXTS), strict=True):
        assert tuple(found["words"]) == expected.words
        first, second = found["classes"]
        np.testing.assert_allclose(first["attributions"], expected.scores, atol=1e-5)
        assert second["target"] == np.argsort(-expected.probabilities)[1]
    status, answer = call(texts_port, "/removal", {"text": TEXTS[1], "target": 1})
    assert status == 200
    (split,) = texts.predictor.tokenizer([TEXTS[1]], "word")
    whole = tokens.collate([split], 32, texts.predictor.tokenizer)
    masked = whole._replace(ids=np.where(whole.features >= 0, 4, whole.ids))  # [MASK]
    for step, batch in ((0, whole), (-1, masked)):
        said = float(np.asarray(texts.answers(batch))[0, 1])
        assert answer["probabilities"][step] == [pytest.approx(said, abs=1e-5)]
    tensor = {"name": "texts", "shape": [2], "datatype": "BYTES", "data": TEXTS}
    _, answer = call(texts_port, "/v2/models/mine/infer", {"inputs": [tensor]})
    outputs = {one["name"]: one for one in answer["outputs"]}
    assert outputs["attributions"]["shape"] == outputs["words"]["shape"] == [2, 7]
    assert outputs["words"]["data"][7:] == ["dull", "plot", ".", "", "", "", ""]
    status, answer = call(texts_port, "/explain", {"texts": ["good", ""]})
    assert (status, answer["error"][:17]) == (400, "texts[1] is empty")
