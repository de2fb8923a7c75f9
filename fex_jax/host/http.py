"""Endpoints over HTTP: plain JSON, or the Open Inference Protocol that KServe calls V2.

Inputs go to the given address and nowhere else: redirects are not followed. Whatever a server
does, a request ends within its timeout and reads a bounded number of bytes.
"""

import base64
import email.utils
import hashlib
import io
import json
import math
import random
import re
import socket
import ssl
import threading
import time
import urllib.parse
import zlib
from collections.abc import Callable, Mapping, Sequence
from http import client
from typing import Any

import numpy as np
from PIL import Image

from fex_jax.errors import HostError
from fex_jax.host.answers import brief
from fex_jax.host.predictor import HostPredictor, Input, host

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_PAUSE = 30.0  # seconds between two tries, unless the server asks for more


class _Passing(Exception):
    """A failure that the next try may not have; `pause`: seconds the server asks for."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


def http(
    url: str,
    *,
    labels: Sequence[str] | str,
    input: Input,
    protocol: str | None = None,
    encode: Callable[[Any], Any] | None = None,
    decode: Callable[[Any], Any] | None = None,
    headers: Mapping[str, str] | None = None,
    batch_size: int | None = 32,
    threads: int = 4,
    timeout: float = 30.0,
    retries: int = 5,
    backoff: float = 0.5,
    longest_wait: float = 120.0,
    most_bytes: int = 2**26,
    digest: str | None = None,
    **options: Any,
) -> HostPredictor:
    """An endpoint that answers POST requests.

    "json" sends {"instances": [...]}, nested lists or strings, and reads {"predictions": [...]} or
    the bare list; "kserve" sends and reads tensors of the Open Inference Protocol, for a
    url …/v2/models/NAME/infer.

    A try that fails for a reason that may pass (no connection, too slow, cut or garbled body,
    status 408, 425, 429, 500, 502, 503 or 504) is repeated after `backoff` · 2^n seconds, half of
    them at random, or after what Retry-After says. Any other failure ends it at once.

    Args:
      url: the address, without a password; secrets belong in `headers`.
      labels: names of the classes, or a file of them.
      input: see `host`.
      protocol: "json" or "kserve"; None: by the url.
      encode: batch → what is sent as JSON, instead; `png` for one, where pictures are large.
      decode: the JSON that came → answers [B, K], instead.
      headers: of each request, such as Authorization.
      batch_size: inputs in a request at most; None: all.
      threads: requests at the same time.
      timeout: seconds that one try may take, all in all.
      retries: tries after the first.
      backoff: seconds before the second try.
      longest_wait: seconds that a server may ask to wait.
      most_bytes: of an answer.
      digest: None: the url without its query.
      options: of `host`.

    Raises:
      ValueError: an address or option that cannot be.
    """
    parts = urllib.parse.urlsplit(url)
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError(f"url: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"url is {url!r}; give http://host/path or https://host/path")
    if re.search(r"[^!-~]", url):
        raise ValueError(f"url {url!r} holds a space or another character that must be escaped")
    if parts.username is not None or parts.password is not None:
        raise ValueError("url holds a user's name or password; give headers={'Authorization': …}")
    if protocol is None:
        protocol = "kserve" if "/v2/models/" in parts.path else "json"
    if protocol not in _PROTOCOLS:
        raise ValueError(f"protocol is {protocol!r}; choose {', '.join(_PROTOCOLS)}")
    if not (timeout > 0 and backoff >= 0 and retries >= 0):
        raise ValueError(
            f"timeout is {timeout}, backoff {backoff}, retries {retries}; give a timeout above 0, "
            "and the others from 0 on"
        )
    own_encode, own_decode = _PROTOCOLS[protocol]
    encode, decode = encode or own_encode, decode or own_decode
    for field, value in dict(headers or {}).items():  # not named with its value: it may be secret
        if not (str(value).isprintable() and str(value).isascii()):
            raise ValueError(
                f"headers: the value of {field!r} is no line of printable ASCII; a key that was "
                "read from a file may end in a line break"
            )
    name = f"{parts.scheme}://{parts.netloc}{parts.path}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    sent = {"Content-Type": "application/json", "Accept-Encoding": "identity"} | dict(headers or {})

    def once(body: bytes) -> Any:
        """One try: the JSON that came."""
        if parts.scheme == "https":
            line = client.HTTPSConnection(parts.hostname, port, timeout=timeout)
        else:
            line = client.HTTPConnection(parts.hostname, port, timeout=timeout)
        late, connected = threading.Event(), []  # the line forgets its socket before it is read

        def hang_up() -> None:
            # A server that sends a byte now and then would outlast the socket's own timeout.
            late.set()
            for sock in connected or [line.sock]:
                if sock is not None:
                    _shut(sock)

        clock = threading.Timer(timeout, hang_up)
        clock.daemon = True
        clock.start()
        try:
            line.connect()
            connected.append(line.sock)
            if late.is_set():
                raise TimeoutError
            line.request("POST", path, body, sent)
            with line.getresponse() as answer:
                return _read(answer, most_bytes, longest_wait)
        except ssl.SSLCertVerificationError as error:
            raise HostError(f"its certificate is not valid: {error.verify_message}") from error
        except (OSError, client.HTTPException, zlib.error) as error:
            if late.is_set() or isinstance(error, TimeoutError):
                raise _Passing(f"no whole answer within {timeout:g} s") from error
            raise _Passing(brief(error)) from error
        except _Passing as error:
            if late.is_set():
                raise _Passing(f"no whole answer within {timeout:g} s") from error
            raise
        finally:
            clock.cancel()
            line.close()

    def call(batch: Any) -> Any:
        body = json.dumps(encode(batch), allow_nan=False).encode()
        for attempt in range(retries + 1):
            try:
                return decode(once(body))
            except _Passing as error:
                if attempt == retries:
                    tries = f"{retries + 1} tries" if retries else "one try"
                    raise HostError(
                        f"{name} gave no answer in {tries}; the last: {error}"
                    ) from error
                pause = min(backoff * 2**attempt, _LONGEST_PAUSE) * random.uniform(0.5, 1)
                time.sleep(max(pause, error.pause))
            except HostError as error:
                raise HostError(f"{name}: {error}") from error

    if digest is None:
        digest = name
        if parts.query:  # may hold a key: it counts, but is not written down
            digest += "?" + hashlib.sha256(parts.query.encode()).hexdigest()[:16]
    settings = {"name": name, "digest": digest, "batch_size": batch_size, "threads": threads}
    return host(call, labels=labels, input=input, **settings | options)


def png(images: np.ndarray) -> dict[str, Any]:
    """uint8 [B, H, W, C] as {"instances": [{"b64": a PNG in base 64}, …]}: TensorFlow Serving's."""
    files = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "PNG")
        files.append({"b64": base64.b64encode(file.getvalue()).decode()})
    return {"instances": files}


def _read(answer: client.HTTPResponse, most_bytes: int, longest_wait: float) -> Any:
    """The JSON of a response, or why there is none."""
    if 300 <= answer.status < 400:
        raise HostError(
            f"it answered {answer.status}, to ask elsewhere ({answer.headers.get('Location')}); "
            "inputs are sent to no other address: give that one if it is right"
        )
    body = _body(answer, most_bytes)
    if answer.status in _PASSING:
        pause = _pause(answer.headers.get("Retry-After"))
        if pause > longest_wait:
            raise HostError(
                f"it answered {answer.status} and asks to wait {pause:.0f} s; longest_wait is "
                f"{longest_wait:g} s"
            )
        raise _Passing(f"status {answer.status} {answer.reason}: {_excerpt(body)}", pause)
    if answer.status != 200:
        raise HostError(f"it answered {answer.status} {answer.reason}: {_excerpt(body)}")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _Passing(f"a body that is no JSON: {_excerpt(body)}") from error


def _body(answer: client.HTTPResponse, most_bytes: int) -> bytes:
    coding = answer.headers.get("Content-Encoding", "identity").lower()
    if coding not in ("identity", "gzip", ""):
        raise HostError(f"its body is encoded as {coding!r}; wanted none, or gzip")
    unzip = zlib.decompressobj(31) if coding == "gzip" else None
    expected, came, body = answer.length, 0, bytearray()
    while piece := answer.read1(2**16):
        came += len(piece)
        body += unzip.decompress(piece, most_bytes + 1) if unzip else piece
        if len(body) > most_bytes or came > most_bytes:
            raise HostError(f"its answer is longer than {most_bytes} bytes (most_bytes)")
    if expected is not None and came < expected:
        raise _Passing(f"a body cut off after {came} of {expected} bytes")
    if unzip and not unzip.eof:
        raise _Passing("a gzip body that was cut off")
    return bytes(body)


def _pause(value: str | None) -> float:
    """Seconds that a Retry-After header asks for: a number of them, or a date; 0 for another."""
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0


def _excerpt(body: bytes) -> str:
    text = " ".join(body[:400].decode("utf-8", "replace").split())
    return repr(text[:160]) if text else "an empty body"


def _shut(sock: socket.socket) -> None:
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # beneath TLS, which another thread reads
    except OSError:
        pass  # closed already


def _to_json(batch: Any) -> Any:
    return {"instances": batch if isinstance(batch, list) else batch.tolist()}


def _from_json(answer: Any) -> Any:
    if isinstance(answer, dict):
        if "predictions" not in answer:
            raise HostError(f"its answer has {_fields(answer)}; wanted 'predictions'")
        return answer["predictions"]
    return answer


def _to_kserve(batch: Any) -> Any:
    if isinstance(batch, list):
        kind, shape, data = "BYTES", [len(batch)], batch
    else:
        kinds = {"b": "BOOL", "u": "UINT", "i": "INT", "f": "FP"}
        bits = "" if batch.dtype.kind == "b" else str(8 * batch.dtype.itemsize)
        kind, shape = kinds[batch.dtype.kind] + bits, list(batch.shape)
        data = batch.ravel().tolist()
    return {"inputs": [{"name": "input", "shape": shape, "datatype": kind, "data": data}]}


def _from_kserve(answer: Any) -> Any:
    outputs = answer.get("outputs") if isinstance(answer, dict) else None
    if not isinstance(outputs, list) or len(outputs) != 1:
        raise HostError(f"its answer has {_fields(answer)}; wanted 'outputs', a list of one tensor")
    try:
        data, shape = np.asarray(outputs[0]["data"]), [int(size) for size in outputs[0]["shape"]]
        return data.reshape(shape)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise HostError(
            f"its tensor cannot be read ({type(error).__name__}: {error}); wanted 'data' and "
            "'shape' that fit"
        ) from error


def _fields(answer: Any) -> str:
    if isinstance(answer, dict):
        return "fields " + (", ".join(map(repr, list(answer)[:5])) or "none")
    return f"a {type(answer).__name__}"


_PROTOCOLS = {"json": (_to_json, _from_json), "kserve": (_to_kserve, _from_kserve)}
