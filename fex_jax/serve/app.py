"""The server's addresses.

    GET  /                             the page
    GET  /model                        what is explained
    POST /explain                      {"images": [base64, …]} or {"texts": […]}, and "targets" or
                                       "top_k"; with "show" also what maps are laid over, which
                                       may come back, with "shown"
    POST /removal                      {"image": base64} or {"text": "…"}, "target", "classes": f as
                                       features go, the most important for the target first
    GET  /v2, /v2/health/live, /v2/health/ready, /v2/models/NAME, /v2/models/NAME/ready
    POST /v2/models/NAME/explain       and /infer: see `kserve`; NAME may be NAME/versions/1
    GET  /health, /metrics

Errors are {"error": …}, see `refusing`: 400 for what cannot be used, 404 and 405 for what is no
address, 408 for what does not come, 413 for too much, 503 where too many wait.
"""

import asyncio
import errno
import pathlib
import re
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import numpy as np
from anyio import to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from fex_jax import checks, modalities, objectives
from fex_jax.serve import bodies, kserve, refusing
from fex_jax.serve.batching import Batcher
from fex_jax.serve.found import Found, rounded
from fex_jax.serve.metrics import Metrics
from fex_jax.serve.removal import Removal
from fex_jax.targets import class_numbers

_PAGE = pathlib.Path(__file__).parent / "page"
_PAGE_FILES = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js"}
# The page loads nothing from elsewhere, and no other site shows it.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_TOP_K, _SHOWN = 8, 4  # classes of one thing, at most and on the page


class Limits(NamedTuple):
    """What one request may bring, and how much may wait."""

    megabytes: int = 16
    things: int = 64  # pictures or texts of a request
    batch: int = 8  # that are explained at a time
    waiting: int = 256
    seconds: float = 30.0  # that a request's body may take to come


class _Service:
    """An explainer and what it needs to answer many."""

    def __init__(self, explainer: Any, name: str, limits: Limits):
        self.explainer, self.name, self.limits = explainer, name, limits
        self.modality = modalities.named(explainer.predictor.modality, __package__)
        self.labels = explainer.predictor.labels
        self.metrics, self.removal = Metrics(), Removal(explainer)
        self.batcher = Batcher(self._work, limits.batch, limits.waiting)
        self._one_removal = threading.Lock()

    def _work(self, things: list[Any], options: tuple[int, bool]) -> list[Found]:
        top_k, named = options
        values, targets = zip(*things, strict=True)
        return self.modality.explain(
            self.explainer, values, list(targets) if named else None, top_k
        )

    def warmup(self) -> None:
        """Compiles what one thing at a time needs; batches are of one until `grow` is through."""
        self.batcher.most = 1
        for top_k in (1, min(_SHOWN, len(self.labels))):
            self.explainer.warmup([1], top_k=top_k)

    def grow(self) -> None:
        """Compiles what larger batches need, and removal."""
        predictor = self.explainer.predictor
        if predictor.inside:
            for batch in modalities.of(predictor).examples(self.explainer, 1):
                self.removal(batch, np.zeros(1))
        while self.batcher.most < self.limits.batch:
            size = min(2 * self.batcher.most, self.limits.batch)
            for top_k in (1, min(_SHOWN, len(self.labels))):
                self.explainer.warmup([size], top_k=top_k)
            self.batcher.most = size

    async def read(
        self, given: Any, targets: Any, top_k: Any = None, shown: Any = False
    ) -> tuple[list, list, int]:
        """The things of a request and their targets, checked, and how many classes of each."""
        field = self.modality.FIELD
        if not isinstance(given, list) or not given:
            raise ValueError(f"{field}: expected a list of them")
        if len(given) > self.limits.things:
            raise ValueError(f"{len(given)} {field}; at most {self.limits.things} a request")
        most = min(_TOP_K, len(self.labels))
        fits = checks.either(checks.integer(1, most), checks.nothing())
        wanted = {"top_k": fits, "shown": checks.flag()}
        checks.require({"top_k": top_k, "shown": shown}, wanted, "the request")
        if None not in (targets, top_k):
            raise ValueError("top_k and targets exclude each other")
        numbers: list[Any] = [None] * len(given)
        if targets is not None:
            numbers = class_numbers(targets, len(given), self.labels, field).tolist()

        def read() -> list[Any]:
            return [
                self.modality.read(self.explainer, one, f"{field}[{i}]", shown)
                for i, one in enumerate(given)
            ]

        return await to_thread.run_sync(read), numbers, top_k or 1

    async def explain(self, things: list[Any], targets: list[Any], top_k: int) -> list[Found]:
        """Explanations, in batches with those of other requests."""
        options = (top_k, targets[0] is not None)
        waiting = [self.batcher.submit(one, options) for one in zip(things, targets, strict=True)]
        found = await asyncio.gather(*map(asyncio.wrap_future, waiting))
        self.metrics.explained(len(things))
        return found

    async def as_they_go(self, thing: Any, found: Found) -> tuple[np.ndarray, np.ndarray]:
        """`Removal` of a thing, one at a time."""

        def ask() -> tuple[np.ndarray, np.ndarray]:
            with self._one_removal:
                batch = self.modality.batch(self.explainer, thing)
                return self.removal(batch, found.logits[0].ravel())

        return await to_thread.run_sync(ask)


Handler = Callable[[_Service, dict[str, Any]], Awaitable[dict[str, Any]]]


async def _explain(service: _Service, body: dict[str, Any]) -> dict[str, Any]:
    field = service.modality.FIELD
    _known(body, field, "targets", "top_k", "show", "shown")
    options = body.get("targets"), body.get("top_k"), body.get("shown", False)
    checks.require({"show": body.get("show", False)}, {"show": checks.flag()}, "the request")
    given = await service.read(body.get(field), *options)
    found = await service.explain(*given)
    answers = [one.json(service.labels) for one in found]
    if body.get("show"):
        for answer, thing in zip(answers, given[0], strict=True):
            answer |= service.modality.shown(service.explainer, thing)
    return {"explanations": answers}


async def _removal(service: _Service, body: dict[str, Any]) -> dict[str, Any]:
    field = service.modality.FIELD
    one = field.removesuffix("s")
    _known(body, one, "target", "classes", "shown")
    options = [body.get("target")], None, body.get("shown", False)
    things, targets, _ = await service.read([body.get(one)], *options)
    classes = body.get("classes", targets)
    checks.require(
        {"classes": classes},
        {"classes": checks.several(checks.integer(0, len(service.labels) - 1))},
        "the request",
    )
    (found,) = await service.explain(things, targets, 1)
    order, answers = await service.as_they_go(things[0], found)
    gone = np.linspace(0, 1, len(answers))
    return {
        "order": order.tolist(),
        "removed": rounded(gone),
        "classes": classes,
        "probabilities": rounded(answers[:, classes]),
    }


def _known(body: dict[str, Any], *names: str) -> None:
    for name in body:
        if name not in names:
            raise ValueError(f"{name!r} is unknown; expected {', '.join(names)}")


def _described(service: _Service) -> dict[str, Any]:
    explainer, predictor = service.explainer, service.explainer.predictor
    looks = getattr(predictor, "preprocessing", None)  # of pictures
    return {
        "name": service.name,
        "modality": predictor.modality,
        "labels": list(service.labels),
        "output": predictor.output,
        "absolute": objectives.KINDS[explainer.method].absolute,
        "grid": looks and list(explainer.grid),
        "side": looks and looks.image_size,
        "asks": not predictor.absence,
        "limits": service.limits._asdict(),
    }


def application(
    explainer: Any, name: str = "explainer", limits: Limits | None = None, loopback: bool = True
) -> Starlette:
    """The ASGI application; `run` serves it.

    Args:
      explainer: an `explain.Explainer`.
      name: of the model, in addresses of KServe's protocol.
      limits: what requests may bring.
      loopback: answer only where the address names this machine.

    Raises:
      ValueError: a name that cannot stand in an address, or an explainer of tables.
    """
    modality = explainer.predictor.modality
    if not hasattr(modalities.named(modality, __package__), "FIELD"):
        thing = modalities.named(modality).THING
        raise ValueError(
            f"explainers of pictures and texts are served; one of {modality} is called in Python: "
            f"fex_jax.load(…)({thing})"
        )
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"name is {name!r}; expected letters, digits, . _ and -")
    service = _Service(explainer, name, limits or Limits())

    def counted(path: str, answer: Callable[[Request], Awaitable[Response]]) -> Any:
        async def endpoint(request: Request) -> Response:
            start = time.perf_counter()
            response = await answer(request)
            service.metrics.request(path, response.status_code, time.perf_counter() - start)
            return response

        return endpoint

    def get(path: str, answer: Callable[[], Response]) -> Route:
        async def of_request(_: Request) -> Response:
            return answer()

        return Route(path, counted(path, of_request), methods=["GET"])

    def post(path: str, handler: Handler) -> Route:
        async def of_request(request: Request) -> Response:
            return await refusing.answer(_answer(service, request, handler))

        return Route(path, counted(path, of_request), methods=["POST"])

    def ok() -> Response:
        return JSONResponse({"status": "ok", "live": True, "ready": True})

    def page(file: str) -> Callable[[], Response]:
        return lambda: FileResponse(_PAGE / file, headers=_HEADERS)

    def metrics() -> Response:
        batcher = service.batcher
        return PlainTextResponse(service.metrics.text(batcher.batches, batcher.length))

    def of_model(at: str) -> list[Route]:
        return [
            get(at, lambda: JSONResponse(kserve.model(service))),
            get(f"{at}/ready", lambda: JSONResponse({"name": name, "ready": True})),
            post(f"{at}/explain", kserve.infer),
            post(f"{at}/infer", kserve.infer),
        ]

    model, described = f"/v2/models/{name}", _described(service)
    routes = [
        *(get(path, page(file)) for path, file in _PAGE_FILES.items()),
        get("/model", lambda: JSONResponse(described)),
        get("/metrics", metrics),
        *(get(path, ok) for path in ("/health", "/v2/health/live", "/v2/health/ready")),
        get("/v2", lambda: JSONResponse(kserve.server())),
        *of_model(model),
        *of_model(f"{model}/versions/{kserve.VERSION}"),
        post("/explain", _explain),
        post("/removal", _removal),
    ]
    guard = [Middleware(refusing.Loopback)] if loopback else []
    app = Starlette(routes=routes, middleware=guard, exception_handlers=refusing.HANDLERS)
    app.state.service = service
    return app


async def _answer(service: _Service, request: Request, handler: Handler) -> dict[str, Any]:
    body = await bodies.read(request, service.limits.megabytes, service.limits.seconds)
    return await handler(service, body)


def run(
    explainer: Any,
    name: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
) -> None:
    """Serves until it is interrupted; what one thing needs is compiled before, the rest meanwhile.

    Raises:
      OSError: the address is taken, or is none.
    """
    from fex_jax.serve.connections import server

    app = application(explainer, name, limits, loopback=host in refusing.LOOPBACK)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used: {error}"
        raise OSError(
            f"port {port} of {host} {reason}; choose another with --port, 0 for any that is free"
        ) from None
    print("compiling …", flush=True)
    app.state.service.warmup()
    threading.Thread(target=app.state.service.grow, daemon=True).start()
    shown = f"[{host}]" if ":" in host else host
    print(
        f"http://{shown}:{listener.getsockname()[1]}  explains {name}; Ctrl+C ends it", flush=True
    )
    server(app).run(sockets=[listener])
