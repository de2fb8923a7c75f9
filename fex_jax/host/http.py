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
from fex_jax.host import kserve
from fex_jax.host.answers import brief
from fex_jax.host.predictor import HostPredictor, Input, host

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_PROTOCOLS = ("json", "kserve")
_PIXELS = {"mean": 0.0, "std": 1.0, "scale": 1 / 255}
_LONGEST_PAUSE = 30.0  # seconds between two tries, unless the server asks for more


class _Passing(Exception):
    """A failure that the next try may not have; `pause`: seconds the server asks for."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


class _Refused(HostError):
    """An answer whose status says that there is none, however often it is asked."""


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
    tensor: str | None = None,
    datatype: str | None = None,
    answer: str | None = None,
    mean: Sequence[float] | float = 0.0,
    std: Sequence[float] | float = 1.0,
    scale: float = 1 / 255,
    **options: Any,
) -> HostPredictor:
    """An endpoint that answers POST requests.

    "json" sends {"instances": [...]}, nested lists or strings, and reads {"predictions": [...]} or
    the bare list; "kserve" sends and reads a tensor of the Open Inference Protocol, for a
    url …/v2/models/NAME/infer. What the model takes and gives, and the order of a picture's axes,
    is read from GET …/v2/models/NAME before the first question, where the server answers that.

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
      digest: None: the url without its query, and what of the following is given.
      tensor: of "kserve": the input's name; None: as the metadata says, or "input".
      datatype: of "kserve": the input's, such as "FP32"; None: as the metadata says, or UINT8 of
        pictures, FP32 or FP64 of numbers, BYTES of texts.
      answer: of "kserve": the output to read; None: the only one of floats.
      mean: of "kserve": pixels become (x · `scale` − `mean`) / `std` if the tensor is of floats.
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
    own = {"tensor": tensor, "datatype": datatype, "answer": answer}
    pixels = {"mean": mean, "std": std, "scale": scale}
    changed: dict[str, Any] = {k: v for k, v in own.items() if v is not None}
    changed |= {k: v for k, v in pixels.items() if np.ravel(v).tolist() != [_PIXELS[k]]}
    if changed and protocol != "kserve":
        raise ValueError(f"{', '.join(changed)}: of protocol='kserve', and this is {protocol}")
    if datatype not in (None, *kserve.DATATYPES):
        raise ValueError(f"datatype is {datatype!r}; choose {', '.join(kserve.DATATYPES)}")
    for field, value in dict(headers or {}).items():  # not named with its value: it may be secret
        if not (str(value).isprintable() and str(value).isascii()):
            raise ValueError(
                f"headers: the value of {field!r} is no line of printable ASCII; a key that was "
                "read from a file may end in a line break"
            )
    name = f"{parts.scheme}://{parts.netloc}{parts.path}"
    query = f"?{parts.query}" if parts.query else ""
    path = (parts.path or "/") + query
    sent = {"Content-Type": "application/json", "Accept-Encoding": "identity"} | dict(headers or {})

    def once(method: str, path: str, body: bytes | None) -> Any:
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
            line.request(method, path, body, sent)
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

    def ask(method: str, path: str, body: bytes | None, read: Callable[[Any], Any]) -> Any:
        """What `read` makes of the answer, in as many tries as may help."""
        for attempt in range(retries + 1):
            try:
                return read(once(method, path, body))
            except _Passing as error:
                if attempt == retries:
                    tries = f"{retries + 1} tries" if retries else "one try"
                    raise HostError(
                        f"{name} gave no answer in {tries}; the last: {error}"
                    ) from error
                pause = min(backoff * 2**attempt, _LONGEST_PAUSE) * random.uniform(0.5, 1)
                time.sleep(max(pause, error.pause))
            except HostError as error:
                raise type(error)(f"{name}: {error}") from error

    def describe() -> Any:
        about = parts.path.rstrip("/").removesuffix("/infer") + query
        try:
            return ask("GET", about, None, lambda answer: answer)
        except _Refused:  # a server may do without
            return None

    if protocol == "kserve":
        tensors = kserve.Tensors(name, describe, **own, **pixels)
        encode, decode = encode or tensors.encode, decode or tensors.decode
    else:
        encode, decode = encode or _to_json, decode or _from_json

    def call(batch: Any) -> Any:
        return ask("POST", path, json.dumps(encode(batch), allow_nan=False).encode(), decode)

    if digest is None:
        digest = name
        if parts.query:  # may hold a key: it counts, but is not written down
            digest += "?" + hashlib.sha256(parts.query.encode()).hexdigest()[:16]
        digest += "".join(f" {k}={np.ravel(v).tolist()}" for k, v in changed.items())
    settings = {"name": name, "digest": digest, "batch_size": batch_size, "threads": threads}
    return host(call, labels=labels, input=input, **settings | {"costly": True} | options)


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
        raise _Refused(f"it answered {answer.status} {answer.reason}: {_excerpt(body)}")
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


def _fields(answer: Any) -> str:
    if isinstance(answer, dict):
        return "fields " + (", ".join(map(repr, list(answer)[:5])) or "none")
    return f"a {type(answer).__name__}"
