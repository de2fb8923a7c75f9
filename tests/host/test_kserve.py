"""Models behind the Open Inference Protocol: real servers that take what they say and no more."""

import contextlib
import http.server
import json
import re
import threading

import numpy as np
import pytest

from fex_jax import host
from fex_jax.host import HostError

PIXELS = np.random.default_rng(0).integers(0, 255, (2, 6, 4, 3)).astype(np.uint8)
ROWS = np.array([[0.25, 0], [0.75, 1]])
GIVES = {"sum": "FP32", "label": "INT64", "twice": "FP32"}


class Model(http.server.BaseHTTPRequestHandler):
    """Refuses tensors other than its own, answers the rows' weighted sums; keeps what came."""

    def do_GET(self) -> None:  # noqa: N802
        self.server.asked.append(self.path)
        about = self.server.about
        self.reply(200, about) if about else self.reply(404, {"error": "no such path"})

    def do_POST(self) -> None:  # noqa: N802
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        (tensor,) = asked["inputs"]
        own = self.server.own
        fits = len(own["shape"]) != len(tensor["shape"]) or all(
            a in (-1, b) for a, b in zip(own["shape"], tensor["shape"], strict=True)
        )
        if (own["name"], own["datatype"]) != (tensor["name"], tensor["datatype"]) or not fits:
            return self.reply(400, {"error": f"unexpected {tensor['name']}"})
        if tensor["datatype"] == "BYTES":
            sums = [float(len(text)) for text in tensor["data"]]
        else:
            rows = np.reshape(tensor["data"], (tensor["shape"][0], -1))
            sums = (rows @ np.arange(rows.shape[1])).tolist()
        data = {"sum": sums, "label": [0] * len(sums), "twice": [2 * one for one in sums]}
        names = [one["name"] for one in asked.get("outputs", ())] or self.server.gives
        outputs = [
            {"name": n, "shape": [len(sums), 1], "datatype": GIVES[n], "data": data[n]}
            for n in names
        ]
        self.reply(200, {"model_name": "m", "outputs": outputs})

    def reply(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(datatype, shape, *, name="pixels", gives=("sum",), described=True):
    """The model's server, and where it is asked."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model)
    server.own = {"name": name, "datatype": datatype, "shape": shape}
    server.asked, server.gives = [], gives
    outputs = [{"name": n, "datatype": GIVES[n], "shape": [-1, 1]} for n in gives]
    about = {"name": "m", "inputs": [server.own], "outputs": outputs}
    server.about = about if described else None
    server.url = f"http://127.0.0.1:{server.server_port}/v2/models/m/infer"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def asking(server, **options) -> host.HostPredictor:
    return host.open(server.url, labels=("x",), output="value", **options)


def weighted(rows: np.ndarray) -> np.ndarray:
    rows = rows.reshape(len(rows), -1)
    return rows @ np.arange(rows.shape[1])


@pytest.mark.parametrize("shape", [[-1, 3, 6, 4], [-1, 6, 4, 3], [-1, 3, -1, -1], [6, 4, 3], []])
@pytest.mark.parametrize("datatype", ["FP32", "UINT8", "INT64"])
def test_pictures_as_the_metadata_says(datatype, shape):
    """Breaks if name, datatype or order of the axes are guessed where the server says them, if
    pixels are scaled where it takes whole ones, or it is asked for its metadata again."""
    with serving(datatype, shape) as server:
        f = asking(server, input=(6, 4, 3), mean=0.5, std=0.25)
        found = [f(PIXELS)[:, 0], f(PIXELS[::-1])[::-1, 0]]
    taken = (PIXELS / 255 - 0.5) / 0.25 if datatype == "FP32" else PIXELS.astype(float)
    taken = taken.transpose(0, 3, 1, 2) if shape[1:2] == [3] else taken
    np.testing.assert_allclose(found, [weighted(taken)] * 2, rtol=1e-5, atol=1e-3)
    metadata, first, _ = server.asked
    assert metadata == "/v2/models/m" and first["outputs"] == [{"name": "sum"}]
    assert first["inputs"][0]["shape"] == list(taken.shape)


def test_rows_texts_and_the_output_that_is_named():
    """Breaks if numbers lose their fractions, texts their column, or an output is guessed."""
    with serving("FP32", [-1, 2], gives=("label", "sum")) as server:  # one of floats
        np.testing.assert_allclose(asking(server, input=(2,))(ROWS)[:, 0], weighted(ROWS))
    with serving("INT64", [-1, 2]) as server:
        f = asking(server, input=(2,))
        np.testing.assert_allclose(f(4 * ROWS)[:, 0], weighted(4 * ROWS))
        with pytest.raises(HostError, match="takes INT64, and is asked about float64 that are"):
            f(ROWS)
    with serving("BYTES", [-1, 1], name="texts", gives=("sum", "twice")) as server:
        with pytest.raises(HostError, match=re.escape("its outputs are sum FP32 [-1, 1], twice")):
            asking(server, input="text")(["a", "bcd"])
        f = asking(server, input="text", answer="twice")
        np.testing.assert_array_equal(f(["a", "bcd"])[:, 0], [2, 6])
        assert server.asked[-1]["inputs"][0]["shape"] == [2, 1]
        assert f.digest != asking(server, input="text", answer="sum").digest


def test_a_server_without_metadata_is_told_by_options():
    """Breaks if there is no way to say from a command line what a model takes and gives."""
    with serving("FP32", [-1, 6, 4, 3], name="x:0", gives=("sum", "twice"), described=False) as one:
        with pytest.raises(HostError, match="400 Bad Request: .*unexpected input"):
            asking(one, input=(6, 4, 3))(PIXELS)
        options = host.parse_options('{"tensor": "x:0", "datatype": "FP32", "input": [6, 4, 3]}')
        with pytest.raises(HostError, match="outputs are sum FP32 .*; name one with answer="):
            asking(one, **options)(PIXELS)
        found = asking(one, **options, answer="twice", scale=1.0)(PIXELS)[:, 0]
        np.testing.assert_allclose(found, 2 * weighted(PIXELS.astype(float)))
    with serving("FP64", [-1, 2], name="input", described=False) as one:  # as nothing is said
        np.testing.assert_allclose(asking(one, input=(2,))(ROWS)[:, 0], weighted(ROWS))
    with serving("UINT8", [-1, 6, 4, 3], name="input", described=False) as one:
        found = asking(one, input=(6, 4, 3))(PIXELS)[:, 0]
        np.testing.assert_allclose(found, weighted(PIXELS.astype(float)))


@pytest.mark.parametrize(
    ("datatype", "shape", "message"),
    [
        ("FP32", [-1, 6, 6, 3], "takes FP32 [-1, 6, 6, 3], and is asked about uint8 [2, 6, 4, 3]"),
        ("FP32", [1, 6, 4, 3], "takes 1 inputs at a time, and is asked about 2: give batch_size=1"),
        ("BYTES", [-1], "takes BYTES [-1], and is asked about uint8"),
        ("FP8", [-1, 6, 4, 3], "takes FP8; wanted one of BOOL"),
    ],
)
def test_what_a_model_cannot_take_is_said(datatype, shape, message):
    """Breaks if the server is left to refuse it in words of its own."""
    with serving(datatype, shape) as server:
        with pytest.raises(HostError, match=re.escape(f"{server.url} {message}")):
            asking(server, input=(6, 4, 3))(PIXELS)
        assert server.asked == ["/v2/models/m"]
    with serving("FP32", [-1, 2]) as server, pytest.raises(HostError, match="texts, which are B"):
        asking(server, input="text")(["a"])


def test_options_of_another_protocol_are_refused():
    """Breaks if an option is taken and not heeded."""
    with pytest.raises(ValueError, match="tensor, std: of protocol='kserve', and this is json"):
        host.open("http://host/x", labels="a", input=(2,), tensor="x", std=2.0)
    with pytest.raises(ValueError, match="datatype is 'FP31'; choose BOOL"):
        host.open("http://host/v2/models/m/infer", labels="a", input=(2,), datatype="FP31")
