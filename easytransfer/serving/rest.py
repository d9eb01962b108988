"""The REST protocol, with health, metrics and the page, as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from easytransfer.serving import metrics, page
from easytransfer.serving.access import Gate
from easytransfer.serving.examples import examples_of_json
from easytransfer.serving.failures import HTTP_STATUS, ServingFailure
from easytransfer.serving.json_tensors import (
    decode_inputs,
    encode_outputs,
    is_row_format,
    parse_object,
    signature_name,
)
from easytransfer.serving.repository import Target, VersionStatus
from easytransfer.serving.servable import Servable
from easytransfer.serving.service import Record, Service

_MODEL = r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?"
_CALL = re.compile(_MODEL + r":(classify|regress|predict)", re.IGNORECASE)
_METADATA = re.compile(_MODEL + r"/metadata", re.IGNORECASE)
_STATUS = re.compile(_MODEL, re.IGNORECASE)
_LARGEST_VERSION = 2**63 - 1
# Bytes of a body, or numbers in an answer, that are converted beside the loop which serves the other requests.
_LARGE = 1 << 17


class RestProtocol:
    """Routes of one server.

    Args:
        service: Answers.
        gate: Who may ask.
        figures: Returns the metrics.
        most_bytes: Largest body.
        ready: Whether requests should be sent here.
    """

    def __init__(
        self, service: Service, gate: Gate, figures: Callable[[], bytes], most_bytes: int, ready: Callable[[], bool]
    ) -> None:
        self._service, self._gate, self._figures = service, gate, figures
        self._most_bytes, self._ready = most_bytes, ready

    def application(self) -> Starlette:
        """Returns the ASGI application."""
        routes = [
            Route("/healthz", self._health),
            Route("/readyz", self._readiness),
            Route("/", page.answer),
            Route("/page/models", self._guarded(self._models)),
            Route("/page/models/{name}", self._guarded(self._facts)),
            Route(metrics.PATH, self._guarded(self._metrics)),
            Route("/v1/{rest:path}", self._guarded(self._model), methods=["GET", "POST"]),
        ]
        found = Starlette(routes=routes, exception_handlers={HTTPException: _unrouted, Exception: _unexpected})
        # A redirection would be to whatever the client calls this host.
        found.router.redirect_slashes = False
        return found

    def _guarded(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            try:
                self._gate.check(request.headers.get("authorization"))
                return await handler(request)
            except ServingFailure as failure:
                return _failed(failure)

        return guarded

    async def _health(self, request: Request) -> Response:
        return _json({"status": "alive"})

    async def _readiness(self, request: Request) -> Response:
        ready = self._ready()
        return _json({"status": "ready" if ready else "not ready"}, 200 if ready else 503)

    async def _metrics(self, request: Request) -> Response:
        return Response(self._figures(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _models(self, request: Request) -> Response:
        return _json({"models": self._service.repository.names})

    async def _facts(self, request: Request) -> Response:
        repository = self._service.repository
        with repository.lease(Target(request.path_params["name"])) as servable:
            return _json(await asyncio.to_thread(page.model_facts, repository.folder_of(servable)))

    async def _model(self, request: Request) -> Response:
        path = request.scope["path"]
        if request.method == "POST" and (found := _CALL.fullmatch(path)):
            return await self._call(request, _target(found), found[4].lower())
        if request.method == "GET" and (found := _METADATA.fullmatch(path)):
            with self._service.repository.lease(_target(found)) as servable:
                return _json(_metadata(servable))
        if request.method == "GET" and (found := _STATUS.fullmatch(path)):
            return _json(_status(self._service.repository.status(_target(found))))
        raise ServingFailure("INVALID_ARGUMENT", f"Malformed request: {request.method} {path}")

    async def _call(self, request: Request, target: Target, api: str) -> Response:
        with self._service.observed(api, "REST") as record:
            body = await self._body(request)
            large = len(body) > _LARGE
            given = await asyncio.to_thread(parse_object, body) if large else parse_object(body)
            if api == "predict":
                return await self._predict(record, target, given, large)
            call = self._service.classify if api == "classify" else self._service.regress
            _, results = await call(record, target, signature_name(given), lambda: examples_of_json(given), None)
            return _json({"results": results})

    async def _predict(self, record: Record, target: Target, given: dict[str, Any], large: bool) -> Response:
        rows = is_row_format(given)
        answer = await self._service.predict(
            record, target, signature_name(given), lambda signature: decode_inputs(given, signature), large=large
        )

        def encoded() -> Response:
            return _json(encode_outputs(answer.outputs, rows))

        if sum(value.size for value in answer.outputs.values()) > _LARGE:
            return await asyncio.to_thread(encoded)
        return encoded()

    async def _body(self, request: Request) -> bytes:
        """Reads the body, but no more of it than is allowed."""
        too_large = ServingFailure(
            "INVALID_ARGUMENT", f"a request may have {self._most_bytes} bytes; this one has more", 413
        )
        with contextlib.suppress(ValueError):
            if int(request.headers.get("content-length", "0")) > self._most_bytes:
                raise too_large
        parts, size = [], 0
        try:
            async for part in request.stream():
                size += len(part)
                if size > self._most_bytes:
                    raise too_large
                parts.append(part)
        except ClientDisconnect:
            raise ServingFailure("CANCELLED", "the client has gone") from None
        return b"".join(parts)


def _target(found: re.Match[str]) -> Target:
    version = None if found[2] is None else int(found[2][:20])
    if version is not None and version > _LARGEST_VERSION:
        raise ServingFailure("INVALID_ARGUMENT", f"Failed to convert version: {found[2][:20]} to numeric.")
    return Target(found[1], version, found[3])


def _status(states: Mapping[int, VersionStatus]) -> dict[str, Any]:
    """Returns `GetModelStatusResponse` in its JSON form: whole numbers of 64 bits are strings; the highest first."""
    return {
        "model_version_status": [
            {
                "version": str(version),
                "state": states[version].state,
                "status": {"error_code": states[version].error_code, "error_message": states[version].error_message},
            }
            for version in sorted(states, reverse=True)
        ]
    }


def _metadata(servable: Servable) -> dict[str, Any]:
    """Returns `GetModelMetadataResponse` in the JSON form that TensorFlow Serving gives it."""
    return {
        "model_spec": {"name": servable.name, "signature_name": "", "version": str(servable.version)},
        "metadata": {"signature_def": {"signature_def": servable.described()}},
    }


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status, media_type="application/json")


def _failed(failure: ServingFailure) -> Response:
    answer = _json({"error": str(failure)}, failure.http_status)
    if failure.code == "UNAUTHENTICATED":
        answer.headers["WWW-Authenticate"] = "Bearer"
    if failure.http_status == HTTP_STATUS["RESOURCE_EXHAUSTED"]:
        answer.headers["Retry-After"] = "1"
    return answer


async def _unrouted(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return _json({"error": f"Malformed request: {request.method} {request.url.path}"}, status)


async def _unexpected(request: Request, error: Exception) -> Response:
    return _json({"error": "the server failed to answer this request"}, 500)
