"""An endpoint that misbehaves: retried where that helps, or else stopped, with nothing lost."""

import base64
import io
import re
import socket
import time

import numpy as np
import pytest
from PIL import Image

from fex_jax.host import Bank, HostError
from fex_jax.host.bank import identify
from fex_jax.host.http import http as endpoint
from fex_jax.host.http import png
from tests.host import misbehaving
from tests.host.misbehaving import PASSES, STOPS, TIMEOUT, serving

INPUTS = np.array([[0.25, 0], [0.75, 1]])
RIGHT = np.array([misbehaving.answer(one) for one in INPUTS.tolist()], np.float32)
SETTINGS = {
    "labels": ("a", "b", "c"), "input": (2,), "timeout": 5.0, "retries": 2, "backoff": 0.002,
    "threads": 1, "most_bytes": 1_000_000,
}  # fmt: skip


def ask(url: str, **options) -> np.ndarray:
    return endpoint(url, **SETTINGS | options)(INPUTS)


@pytest.mark.parametrize("fault", STOPS)
def test_a_lasting_fault_is_one_sentence(fault):
    """Breaks if it passes as an answer, outlasts its timeout, or is retried when that is no use."""
    behave, message, requests = STOPS[fault]
    timeout = 0.2 if message == TIMEOUT else 5.0  # of what ends by itself a busy machine is patient
    with serving(behave) as server:
        start = time.monotonic()
        with pytest.raises(HostError, match=re.escape(message)) as caught:
            ask(server.url, timeout=timeout)
        assert time.monotonic() - start < 5
        assert server.count == requests
    assert server.url in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", PASSES)
def test_a_passing_fault_is_asked_again(fault):
    """Breaks if it ends the run, or spoils the answer that comes after it."""
    with serving(PASSES[fault]) as server:
        found = ask(server.url, timeout=0.2 if "hangs" in fault else 5.0)
        np.testing.assert_allclose(found, RIGHT, rtol=1e-6)
        assert server.count <= 2


def test_no_one_listens():
    """Breaks if a refused connection is a traceback or an answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(HostError, match="in 3 tries; the last: ConnectionRefusedError"):
        ask(f"http://127.0.0.1:{port}/")


def test_no_such_host():
    """Breaks if a name that does not resolve is a traceback."""
    with pytest.raises(HostError, match="gave no answer in one try"):
        ask("http://no-such-host.invalid/", retries=0, timeout=5)


def test_tls_where_there_is_none():
    """Breaks if a plain port asked by https hangs or is a traceback."""
    with serving(misbehaving.good) as server:
        with pytest.raises(HostError, match="gave no answer in 3 tries"):
            ask(server.url.replace("http:", "https:"))


def test_a_redirect_is_not_followed():
    """Breaks if inputs are sent to an address that no one named."""
    with serving(misbehaving.good) as elsewhere:
        with serving(misbehaving.status(308, Location=elsewhere.url)) as server:
            with pytest.raises(HostError, match="to ask elsewhere"):
                ask(server.url)
        assert elsewhere.count == 0


def test_the_pause_is_the_servers():
    """Breaks if Retry-After is not waited for."""
    with serving(misbehaving.first(misbehaving.status(429, Retry_After="0.15"))) as server:
        start = time.monotonic()
        ask(server.url)
        assert time.monotonic() - start >= 0.15


def test_pauses_grow_and_differ(monkeypatch):
    """Breaks if retries come at once, at equal distances, or at the same time from all clients."""
    pauses = []
    monkeypatch.setattr("fex_jax.host.http.time.sleep", pauses.append)
    with serving(misbehaving.status(500)) as server:
        with pytest.raises(HostError):
            ask(server.url, retries=4, backoff=1.0)
    assert all(2**i / 2 <= pause <= 2**i for i, pause in enumerate(pauses)) and len(pauses) == 4
    assert len({pause / 2**i for i, pause in enumerate(pauses)}) == 4


def test_k_may_not_change():
    """Breaks if only the first answer's classes are counted."""
    with serving(misbehaving.k_changes) as server:
        predictor = endpoint(server.url, **SETTINGS)
        predictor(INPUTS)
        with pytest.raises(HostError, match=re.escape("shape (2, 2)")):
            predictor(INPUTS)


def test_shuffled_rows_are_found_by_check():
    """Breaks if `check` misses what no single answer shows."""
    with serving(misbehaving.shuffled) as server:
        with pytest.raises(HostError, match="in reverse order"):
            endpoint(server.url, **SETTINGS).check(INPUTS)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_server_that_dies_leaves_a_bank_of_all_it_said(tmp_path, threads):
    """Breaks if an answer that came is lost, or one is asked for again when the server is back."""
    inputs = np.linspace(0, 1, 24).reshape(12, 2)
    masks = np.ones((12, 2), bool)
    options = SETTINGS | {"batch_size": 2, "threads": threads, "digest": "endpoint"}

    def open_bank(server) -> Bank:
        return Bank(tmp_path / "bank", endpoint(server.url, **options), removal="none", grid=(2,))

    with serving(misbehaving.dies_after(3)) as server, open_bank(server) as bank:
        with pytest.raises(HostError, match="all 6 answers are saved"):
            bank.ask(identify(inputs), masks, lambda rows: inputs[rows])
    with serving(misbehaving.good) as server, open_bank(server) as bank:
        answers = bank.ask(identify(inputs), masks, lambda rows: inputs[rows])
        assert server.count == 3
    expected = [misbehaving.answer(one) for one in inputs.tolist()]
    np.testing.assert_allclose(answers, expected, rtol=1e-6)


def test_a_wrong_answer_never_reaches_the_bank(tmp_path):
    """Breaks if an answer is kept before it is checked."""
    nan = STOPS["NaN"][0]

    def behave(request, instances, number):
        (misbehaving.good if number == 1 else nan)(request, instances, number)

    with serving(behave) as server:
        predictor = endpoint(server.url, **SETTINGS | {"batch_size": 1})
        with Bank(tmp_path / "bank", predictor, removal="none", grid=(2,)) as bank:
            with pytest.raises(HostError, match="nan for class 0 of input 0; .*all 1 answers"):
                bank.ask(identify(INPUTS), np.ones((2, 2)), lambda rows: INPUTS[rows])
            assert len(bank) == 1
            np.testing.assert_allclose(next(bank.records())[2], RIGHT[0], rtol=1e-6)


@pytest.mark.parametrize("options", [{"threads": 1}, {"threads": 3}, {"fixed": True}])
def test_one_bad_row_loses_no_other(tmp_path, options):
    """Breaks if rows that came beside a NaN, and were paid for, are asked for again, or if what
    fills up a call of a fixed size is taken for an answer."""
    inputs = np.linspace(0, 1, 18).reshape(9, 2)
    bad = inputs[5].tolist()

    def behave(request, instances, number):
        rows = [[float("nan")] * 3 if one == bad else misbehaving.answer(one) for one in instances]
        asked.extend(instances)
        misbehaving.reply(request, {"predictions": rows})

    options, asked = SETTINGS | {"batch_size": 6, "digest": "endpoint"} | options, []
    with serving(behave) as server:
        f = endpoint(server.url, **options)
        with Bank(tmp_path / "bank", f, removal="none", grid=(2,)) as bank:
            with pytest.raises(
                HostError, match="nan for class 0 of input 5; wanted finite numbers"
            ):
                bank.ask(identify(inputs), np.ones((9, 2)), lambda rows: inputs[rows])
            held = len(bank)
    assert held == len({tuple(one) for one in asked}) - 1
    with serving(misbehaving.good) as server:
        f = endpoint(server.url, **options)
        with Bank(tmp_path / "bank", f, removal="none", grid=(2,)) as bank:
            assert len(bank) == held >= 5
            found = bank.ask(identify(inputs), np.ones((9, 2)), lambda rows: inputs[rows])
    expected = [misbehaving.answer(one) for one in inputs.tolist()]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_requests_overlap():
    """Breaks if threads wait for each other, or more run than allowed."""
    running, most = set(), []

    def behave(request, instances, number):
        running.add(number)
        most.append(len(running))
        misbehaving.late(request, instances, number)
        running.discard(number)

    with serving(behave) as server:
        endpoint(server.url, **SETTINGS | {"threads": 4, "batch_size": 1})(np.zeros((12, 2)))
    assert 2 <= max(most) <= 5  # a client may go on before its server thread has counted down


def test_pictures_as_png():
    """Breaks if a server that decodes the files gets other pixels."""
    seen = []

    def behave(request, instances, _):
        files = [io.BytesIO(base64.b64decode(one["b64"])) for one in instances]
        seen.append(np.stack([np.asarray(Image.open(file)) for file in files]))
        misbehaving.reply(request, [misbehaving.GOOD] * len(instances))

    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype(np.uint8)
    with serving(behave) as server:
        endpoint(server.url, **SETTINGS | {"input": (5, 4, 3), "encode": png})(images)
    np.testing.assert_array_equal(seen[0], images)


def test_what_is_sent_and_what_names_it():
    """Breaks if a header is not sent, or a secret of the address gets into digests or messages."""
    seen = []

    def behave(request, instances, number):
        seen.append((request.headers["Authorization"], request.path, instances))
        (misbehaving.good if number == 1 else misbehaving.status(404))(request, instances, number)

    with serving(behave) as server:
        options = SETTINGS | {"headers": {"Authorization": "Bearer s3cret"}}
        predictor = endpoint(server.url + "?key=s3cret", **options)
        predictor(INPUTS)
        assert seen == [("Bearer s3cret", "/predict?key=s3cret", INPUTS.tolist())]
        assert "s3cret" not in predictor.digest and predictor.digest.startswith(server.url + "?")
        assert predictor.digest != endpoint(server.url, **options).digest
        with pytest.raises(HostError) as caught:
            predictor(INPUTS)
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("http://", {}, "give http://host/path"),
        ("ftp://host/x", {}, "give http://host/path"),
        ("http://host:port/", {}, "url: "),
        (
            "http://host/",
            {"headers": {"Authorization": "key\n"}},
            "the value of 'Authorization' is",
        ),
        ("http://me:secret@host/", {}, "give headers="),
        ("http://host/a b", {}, "must be escaped"),
        ("http://host/", {"protocol": "grpc"}, "choose json, kserve"),
        ("http://host/", {"timeout": 0}, "timeout is 0"),
        ("http://host/", {"retries": -1}, "retries -1"),
    ],
)
def test_addresses_and_options_that_cannot_be_are_named(url, options, message):
    """Breaks if one is found out only by the first query."""
    with pytest.raises(ValueError, match=re.escape(message)):
        endpoint(url, **SETTINGS | options)


def test_numbers_that_json_lacks_are_not_sent():
    """Breaks if NaN leaves in a request that a server cannot read."""
    with serving(misbehaving.good) as server:
        with pytest.raises(HostError, match="not JSON compliant"):
            endpoint(server.url, **SETTINGS)(np.array([[np.nan, 0]]))
        assert server.count == 0
