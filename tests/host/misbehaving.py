"""A real HTTP server on 127.0.0.1 that answers as it is told, wrongly too."""

import contextlib
import gzip
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator

Request = http.server.BaseHTTPRequestHandler

K = 3
GOOD = [0.2, 0.3, 0.5]


class Server(http.server.ThreadingHTTPServer):
    """Counts its requests; `behave(request, instances, number)` answers each of them."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, behave: Callable[[Request, list, int], None]) -> None:
        self.behave, self.count, self.rows = behave, 0, 0
        self.lock = threading.Lock()
        self.over = threading.Event()  # ends what hangs
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/predict"

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are expected."""


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = 2

    def do_POST(self) -> None:  # noqa: N802
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.lock:
            self.server.count += 1
            number = self.server.count
        self.server.behave(self, json.loads(body)["instances"], number)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(behave: Callable[[Request, list, int], None]) -> Iterator[Server]:
    """The server for as long as the block lasts."""
    server = Server(behave)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()


def reply(
    request: Request,
    content: object = None,
    *,
    status: int = 200,
    raw: bytes | None = None,
    length: int | None = None,
    **headers: str,
) -> None:
    """Sends a response: `content` as JSON, or the bytes of `raw`; headers_like_this."""
    body = json.dumps(content).encode() if raw is None else raw
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    if "Transfer_Encoding" not in headers:
        request.send_header("Content-Length", str(len(body) if length is None else length))
    request.end_headers()
    request.wfile.write(body)


def good(request: Request, instances: list, _: int = 0) -> None:
    """The right answer: a row for each input that depends on it."""
    reply(request, {"predictions": [answer(one) for one in instances]})


def answer(one: list) -> list[float]:
    """Three probabilities of one input, a row of numbers in 0..1."""
    return [0.2 + one[0] / 10, 0.3 - one[0] / 10, 0.5]


# Faults that never end well: a behaviour, and words of the message it must end in.
# A number after them: requests that it may take (1: no retry, 3: the first and two retries).


def hangs(request: Request, *_: object) -> None:
    request.server.over.wait(2)


def hangs_mid_body(request: Request, *_: object) -> None:
    reply(request, raw=b'{"predictions": [[0.2', length=60)
    request.wfile.flush()
    request.server.over.wait(2)


def drips(request: Request, *_: object) -> None:
    reply(request, raw=b'{"predictions":', length=4000)
    with contextlib.suppress(OSError):
        while not request.server.over.wait(0.03):
            request.wfile.write(b" ")
            request.wfile.flush()


def drips_headers(request: Request, *_: object) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    with contextlib.suppress(OSError):
        while not request.server.over.wait(0.03):
            request.wfile.write(b"x")
            request.wfile.flush()


def endless_continue(request: Request, *_: object) -> None:
    with contextlib.suppress(OSError):
        while not request.server.over.wait(0.01):
            request.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.wfile.flush()


def closes_at_once(request: Request, *_: object) -> None:
    request.connection.close()
    request.close_connection = True


def closes_mid_body(request: Request, *_: object) -> None:
    reply(request, raw=b'{"predictions": [[0.2, 0.3', length=60)


def whole_json_but_short(request: Request, instances: list, _: int) -> None:
    body = json.dumps({"predictions": [GOOD] * len(instances)}).encode()
    reply(request, raw=body, length=len(body) + 10)


def chunked(data: bytes) -> Callable[..., None]:
    def behave(request: Request, *_: object) -> None:
        request.protocol_version = "HTTP/1.1"
        reply(request, raw=data, Transfer_Encoding="chunked")
        request.close_connection = True

    return behave


def raw_bytes(data: bytes) -> Callable[..., None]:
    def behave(request: Request, *_: object) -> None:
        request.wfile.write(data)

    return behave


def body(data: bytes, **headers: str) -> Callable[..., None]:
    return lambda request, *_: reply(request, raw=data, **headers)


def status(code: int, text: bytes = b"", **headers: str) -> Callable[..., None]:
    return lambda request, *_: reply(request, raw=text, status=code, **headers)


def rows(make: Callable[[int], object]) -> Callable[..., None]:
    """Valid JSON of the wrong content: make(number of rows) → predictions."""
    return lambda request, instances, _: reply(request, {"predictions": make(len(instances))})


def json_text(text: str) -> Callable[..., None]:
    return body(text.encode(), Content_Type="application/json")


def huge(request: Request, *_: object) -> None:
    request.send_response(200)
    request.end_headers()  # no length: until the connection closes
    with contextlib.suppress(OSError):
        for _ in range(400):
            request.wfile.write(b"[" * 10_000)


def k_changes(request: Request, instances: list, number: int) -> None:
    reply(request, [GOOD if number == 1 else [0.5, 0.5] for _ in instances])


def dies_after(count: int) -> Callable[..., None]:
    def behave(request: Request, instances: list, number: int) -> None:
        (good if number <= count else closes_at_once)(request, instances, number)

    return behave


def redirects_to_itself(request: Request, *_: object) -> None:
    reply(request, raw=b"", status=302, Location=request.path)


def late(request: Request, instances: list, number: int) -> None:
    time.sleep(0.05)
    good(request, instances, number)


def shuffled(request: Request, instances: list, _: int) -> None:
    """By the first number, not as they came: each row is a good one."""
    reply(request, {"predictions": [answer(one) for one in sorted(instances)]})


TIMEOUT = "no whole answer within 0.2 s"
STOPS: dict[str, tuple[Callable[..., None], str, int]] = {
    "hangs": (hangs, TIMEOUT, 3),
    "hangs in the middle of the body": (hangs_mid_body, TIMEOUT, 3),
    "a byte now and then": (drips, TIMEOUT, 3),
    "headers a byte now and then": (drips_headers, TIMEOUT, 3),
    "100 Continue for ever": (endless_continue, TIMEOUT, 3),
    "closes without a word": (closes_at_once, "gave no answer in 3 tries", 3),
    "closes in the middle of the body": (closes_mid_body, "cut off after 26 of 60 bytes", 3),
    "closes before the stated length": (whole_json_but_short, "cut off after", 3),
    "no HTTP": (raw_bytes(b"hello\r\n\r\n"), "BadStatusLine", 3),
    "an endless header": (raw_bytes(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000), "LineTooLong", 3),
    "a thousand headers": (
        raw_bytes(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 999 + b"\r\n"), "more than 100", 3,
    ),
    "chunks without sizes": (chunked(b"not chunks at all"), "IncompleteRead", 3),
    "chunks cut off": (chunked(b"20\r\n[[0.2"), "IncompleteRead", 3),
    "gzip garbage": (body(b"not gzip", Content_Encoding="gzip"), "incorrect header check", 3),
    "gzip cut off": (
        body(gzip.compress(b"[[0.2, 0.3, 0.5]]")[:-12], Content_Encoding="gzip"), "gzip body", 3,
    ),
    "a gzip bomb": (
        body(gzip.compress(b" " * 5_000_000), Content_Encoding="gzip"), "longer than 1000000", 1,
    ),
    "a coding that no one asked for": (body(b"x", Content_Encoding="br"), "encoded as 'br'", 1),
    "500 for ever": (status(500, b"out of memory"), "status 500", 3),
    "503 for ever": (status(503), "status 503", 3),
    "429 for ever": (status(429, Retry_After="0"), "status 429", 3),
    "429, in an hour": (status(429, Retry_After="3600"), "asks to wait 3600 s", 1),
    "400": (status(400, b"bad instances"), "400 Bad Request: 'bad instances'", 1),
    "401": (status(401), "answered 401", 1),
    "403": (status(403), "answered 403", 1),
    "404": (status(404, b"no such model"), "404 Not Found: 'no such model'", 1),
    "413": (status(413), "answered 413", 1),
    "204, nothing": (status(204), "answered 204", 1),
    "a redirect to itself": (redirects_to_itself, "answered 302", 1),
    "a redirect to another host": (
        status(307, Location="http://example.invalid/"), "to ask elsewhere (http://example.inv", 1,
    ),
    "an empty body": (body(b""), "an empty body", 3),
    "a page of HTML": (body(b"<html>login", Content_Type="text/html"), "no JSON: '<html>login'", 3),
    "JSON that ends early": (json_text('{"predictions": [[0.2, 0.3'), "no JSON", 3),
    "JSON and more": (json_text("[[0.2, 0.3, 0.5]] bye"), "no JSON", 3),
    "JSON too deep": (json_text("[" * 200_000), "no JSON", 3),
    "bytes that are no text": (body(b"\xff\xfe\x00"), "no JSON", 3),
    "a huge body": (huge, "longer than 1000000 bytes", 1),
    "another field": (json_text('{"outputs": []}'), "fields 'outputs'; wanted 'predictions'", 1),
    "an error with status 200": (json_text('{"error": "gpu"}'), "fields 'error'", 1),
    "null": (json_text("null"), "values of type object", 1),
    "NaN": (rows(lambda n: [[float("nan"), 0, 1]] * n), "nan for class 0", 1),
    "Infinity": (rows(lambda n: [[float("inf"), 0, 1]] * n), "inf for class 0", 1),
    "1e999": (json_text('{"predictions": [[1e999, 0, 0], [1, 0, 0]]}'), "inf for class 0", 1),
    "a hole": (rows(lambda n: [[None, 0.5, 0.5]] * n), "values of type object", 1),
    "too few classes": (rows(lambda n: [[0.5, 0.5]] * n), "shape (2, 2)", 1),
    "too many classes": (rows(lambda n: [[0.25] * 4] * n), "shape (2, 4)", 1),
    "too few rows": (rows(lambda n: [GOOD] * (n - 1)), "shape (1, 3) to 2 inputs", 1),
    "too many rows": (rows(lambda n: [GOOD] * (n + 1)), "shape (3, 3) to 2 inputs", 1),
    "rows of two lengths": (rows(lambda n: [GOOD, [1.0]]), "no array of numbers", 1),
    "sums to .5": (rows(lambda n: [[0.1, 0.2, 0.2]] * n), "sum to 0.5", 1),
    "logits": (rows(lambda n: [[3.0, -1, 2]] * n), "answered -1; wanted probabilities", 1),
    "numbers as text": (rows(lambda n: [["0.2", "0.3", "0.5"]] * n), "values of type <U3", 1),
    "labels": (rows(lambda n: ["cat"] * n), "values of type <U3", 1),
    "true and false": (rows(lambda n: [[True, False, False]] * n), "values of type bool", 1),
    "nested once more": (rows(lambda n: [[GOOD] * n]), "shape (1, 2, 3)", 1),
    "not nested": (rows(lambda n: GOOD * n), "shape (6,)", 1),
}  # fmt: skip


def first(bad: Callable[..., None]) -> Callable[..., None]:
    """Behaves badly at the first request only."""

    def behave(request: Request, instances: list, number: int) -> None:
        (bad if number == 1 else good)(request, instances, number)

    return behave


# Faults that pass: the next try is right.
PASSES: dict[str, Callable[..., None]] = {
    "500, then right": first(status(500)),
    "502, then right": first(status(502)),
    "503 with Retry-After, then right": first(status(503, Retry_After="0.01")),
    "429 with a date, then right": first(status(429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")),
    "429 with nonsense, then right": first(status(429, Retry_After="soon")),
    "hangs, then right": first(hangs),
    "closes, then right": first(closes_at_once),
    "cut off, then right": first(closes_mid_body),
    "a page, then right": first(body(b"<html>warming up")),
    "gzip garbage, then right": first(body(b"x", Content_Encoding="gzip")),
    "slow but in time": late,
    "gzip that is right": lambda request, instances, _: reply(
        request,
        raw=gzip.compress(json.dumps([answer(one) for one in instances]).encode()),
        Content_Encoding="gzip",
    ),
    "right, called text": lambda request, instances, _: reply(
        request, [answer(one) for one in instances], Content_Type="text/plain"
    ),
    "right, until the connection closes": lambda request, instances, _: request.wfile.write(
        b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps([answer(one) for one in instances]).encode()
    ),
}
