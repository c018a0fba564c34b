"""The routes of a service: each reads arguments, asks the service, and returns JSON."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from plait import __version__
from plait.errors import nearest
from plait.serving import openapi, page, streaming
from plait.serving.bodies import read_rows
from plait.serving.gate import Gate
from plait.serving.refusals import Refusal
from plait.serving.service import Service

BOUNDS = {"ge": "at least", "le": "at most", "lt": "below"}  # of parameters, as pydantic has them

Alignment = Annotated[str | None, Query(description="the alignment, if the model has more than one")]


def create(service: Service, token: str | None = None, local: bool = False) -> FastAPI:
    """Return the application that serves a model.

    With a `token`, requests must bring it. With `local`, they must be for this machine by name.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title=f"plait: {service.name}",
        version=__version__,
        description=service.model.summary,
        lifespan=lifespan,
        dependencies=[Depends(check_parameters)],
        docs_url=None,  # both would load their scripts from other servers
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.add_middleware(
        Gate, limits=service.limits, metrics=service.metrics, token=token, local=local and token is None
    )
    _answer_errors(app)
    _add_state(app, service)
    _add_predict(app, service)
    if service.model.alignments:
        _add_search(app, service)
        _add_classify(app, service)
    _add_embed(app, service)
    page.add(app, service, token)
    return app


def check_parameters(request: Request) -> None:
    """Raise `Refusal` for a parameter that a route does not know: a mistyped one would have no effect."""
    route = request.scope.get("route")
    if request.method != "POST" or not isinstance(route, APIRoute):
        return
    names = [parameter.alias for parameter in route.dependant.query_params]
    for name in request.query_params:
        if name not in names:
            raise Refusal(422, f"no parameter '{name[:40]}': {nearest(name[:40], names)}")


def _answer_errors(app: FastAPI) -> None:
    """Answer all errors in one form."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> JSONResponse:
        headers = dict(refusal.headers or {})
        return JSONResponse(refusal.body(), refusal.status, headers=headers)

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> JSONResponse:
        message = "no such route, or not by this method; /openapi.json lists all"
        return JSONResponse({"error": message}, error.status_code, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        reason = "is missing" if first["type"] == "missing" else "cannot be read"
        for bound, words in BOUNDS.items():
            if bound in first.get("ctx", {}):
                reason = f"must be {words} {first['ctx'][bound]}"
        return JSONResponse({"error": f"the parameter '{first['loc'][-1]}' {reason}"}, 422)


def _add_state(app: FastAPI, service: Service) -> None:
    """Add the routes that tell what the service is and how it is."""

    @app.get("/health", summary="Say that the process runs")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready", summary="Say whether requests can be answered")
    async def ready() -> JSONResponse:
        if service.is_ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "starting or stopping"}, 503)

    @app.get("/schema", summary="Describe the columns, answers and examples of the model")
    async def schema() -> JSONResponse:
        return JSONResponse(openapi.description(service))

    @app.get("/metrics", summary="Return metrics for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _add_predict(app: FastAPI, service: Service) -> None:
    @app.post(
        "/predict",
        summary="Predict the targets of rows",
        responses=openapi.responses(service, openapi.predicted(service)),
        openapi_extra=openapi.request_body(service),
    )
    async def predict(
        request: Request,
        strict: Annotated[
            bool, Query(description="refuse a request with a cell that cannot be read; else it is missing")
        ] = True,
    ) -> JSONResponse:
        return JSONResponse(await service.predict(await read_rows(request, service.limits), strict))

    @app.post(
        "/predict/batch",
        summary="Predict the targets of a stream of rows",
        description="Rows come as JSON Lines or as an Arrow stream, and so do the answers, in their order. A "
        "cell that cannot be read is missing, and `problem` says why. A line that is no row is answered by a "
        "line with `error`.",
        responses=openapi.stream_responses(service),
        openapi_extra=openapi.stream_body(service),
    )
    async def predict_batch(request: Request) -> Response:
        return await streaming.answer(request, service)


def _add_embed(app: FastAPI, service: Service) -> None:
    answer = openapi.lists(embeddings={"type": "array", "items": {"type": "number"}})

    @app.post(
        "/embed",
        summary="Return a vector for each row",
        responses=openapi.responses(service, answer),
        openapi_extra=openapi.request_body(service),
    )
    async def embed(
        request: Request,
        column: Annotated[str | None, Query(description="embed only this aligned column")] = None,
        alignment: Alignment = None,
    ) -> JSONResponse:
        rows = await read_rows(request, service.limits)
        return JSONResponse(await service.embed(rows, column, alignment))


def _add_search(app: FastAPI, service: Service) -> None:
    rows_and_files = openapi.lists(rows={"type": "object"}, files={"type": "object"})

    @app.post(
        "/search",
        summary="Find the rows of the index that match a query best",
        responses={**openapi.responses(service, rows_and_files), 404: openapi.refused("there is no index")},
        openapi_extra=openapi.request_body(service, one=True),
    )
    async def search(
        request: Request,
        k: Annotated[int, Query(ge=1, le=1000, description="number of rows to return")] = 10,
        in_: Annotated[str | None, Query(alias="in", description="the column to search")] = None,
        where: Annotated[
            str | None, Query(description="a condition on the rows, such as price < 10", max_length=1000)
        ] = None,
        exact: Annotated[bool, Query(description="compare with every row")] = False,
        alignment: Alignment = None,
    ) -> JSONResponse:
        rows = await read_rows(request, service.limits)
        if len(rows) != 1:
            raise Refusal(422, f"expected one row, the query; came {len(rows)}")
        return JSONResponse(await service.search(rows[0], k, in_, where, exact, alignment))

    @app.get(
        "/media",
        summary="Return a file of a row of the index",
        response_class=FileResponse,
        responses=openapi.media_responses(),
    )
    async def media(row: Annotated[int, Query(ge=0, lt=2**63)], column: str, alignment: str) -> FileResponse:
        path, kind = await asyncio.to_thread(service.gallery.file, row, column, alignment)
        return FileResponse(path, media_type=kind)


def _add_classify(app: FastAPI, service: Service) -> None:
    classified = openapi.lists(answers={"type": "object"})

    @app.post(
        "/classify",
        summary="Label cells with labels of your choice",
        responses=openapi.responses(service, classified),
        openapi_extra=openapi.request_body(service),
    )
    async def classify(
        request: Request,
        labels: Annotated[list[str], Query(description="the labels", max_length=1000)],
        template: Annotated[
            list[str] | None, Query(description="a text with {} in place of the label", max_length=100)
        ] = None,
        threshold: Annotated[float | None, Query(description="smallest cosine that counts")] = None,
        column: Annotated[str | None, Query(description="the column to label")] = None,
        text: Annotated[str | None, Query(description="the text column that labels resemble")] = None,
        alignment: Alignment = None,
    ) -> JSONResponse:
        rows = await read_rows(request, service.limits)
        templates = template or ["{}"]
        answers = await service.classify(rows, labels, column, templates, threshold, text, alignment)
        return JSONResponse(answers)
