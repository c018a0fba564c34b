"""The OpenAPI description says what this very model takes and answers, and the service keeps to it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import plait
from plait.prediction import examples
from support.serving import served
from support.tables import FAST, make_rows, write_csv

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


@pytest.fixture(scope="module")
def description(service: httpx.Client) -> dict[str, Any]:
    return dict(service.get("/openapi.json").json())


@pytest.fixture(scope="module")
def row(description: dict[str, Any]) -> dict[str, Any]:
    body = description["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    return dict(body["schema"]["anyOf"][0])


def test_a_row_has_the_columns_of_the_model(row: dict[str, Any]) -> None:
    assert set(row["properties"]) == {"photo", "text", "price", "shop", "label"}
    assert row["additionalProperties"] is False
    assert row["properties"]["photo"]["contentMediaType"] == "image/*"
    assert row["properties"]["shop"]["x-training"] == {"values": ["south", "north"]}
    training = row["properties"]["price"]["x-training"]
    assert training["low"] < training["median"] < training["high"]
    assert "half of them below" in row["properties"]["price"]["description"]


def test_answers_have_the_columns_of_predict(description: dict[str, Any], model: plait.Model) -> None:
    response = description["paths"]["/predict"]["post"]["responses"]["200"]
    answers = response["content"]["application/json"]["schema"]["properties"]["answers"]
    assert answers["items"]["required"] == model.predict([{}]).column_names


def test_examples_are_rows_of_the_test_side(service: httpx.Client, model: plait.Model) -> None:
    """Each can be sent as it is, and has the true answer beside it."""
    described = service.get("/schema").json()["examples"]
    kept = examples.load(model.folder)
    assert len(described) == len(kept) == 6
    for example, of_model in zip(described, kept, strict=True):
        assert example["values"]["label"] in ("red", "green", "blue")
        (photo,) = of_model.files["photo"]
        assert example["files"]["photo"] == [f"examples/{photo.name}"]
        sent = {name: cell for name, cell in example["values"].items() if name != "label"}
        response = service.post("/predict", data=sent, files={"photo": photo.read_bytes()})
        assert response.status_code == 200


@schemathesis.serializer("application/jsonl", "application/x-ndjson", "application/json-lines")
def as_lines(context: Any, rows: Any) -> bytes:
    """Write a line for each item."""
    items = rows if isinstance(rows, list) else [rows]
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


@schemathesis.serializer("application/vnd.apache.arrow.stream")
def as_bytes(context: Any, content: Any) -> bytes:
    return content if isinstance(content, bytes) else str(content).encode("utf-8", "replace")


def png(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture
def api(service: httpx.Client) -> Any:
    return api_of(service)


def api_of(service: httpx.Client) -> Any:
    schemathesis.openapi.format("binary", st.sampled_from([png((200, 0, 0)), b"", b"no image"]))
    return schemathesis.openapi.from_url(f"{service.base_url}/openapi.json")


def operations(api: Any) -> list[Any]:
    return [result.ok() for result in api.get_all_operations()]


def check_operations(api: Any, examples: int, derandomize: bool) -> int:
    """Send requests that fit the description, and others that do not. Return the number of operations."""
    options = settings(
        max_examples=examples,
        deadline=None,
        derandomize=derandomize,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    for operation in operations(api):
        # What takes no body takes nothing that could be wrong.
        for mode in GenerationMode if operation.body else [GenerationMode.POSITIVE]:

            @options
            @given(case=operation.as_strategy(generation_mode=mode))
            def check(case: Any) -> None:
                # A stream goes on after a bad line. A form has texts alone, of which few are wrong.
                is_lenient = case.path == "/predict/batch" or case.media_type == "multipart/form-data"
                excluded = [negative_data_rejection] if is_lenient else []
                case.call_and_validate(checks=CHECKS, excluded_checks=excluded)

            check()
    return len(operations(api))


def test_the_service_keeps_to_its_description(api: Any) -> None:
    assert check_operations(api, 12, derandomize=True) >= 6


@pytest.mark.slow
def test_the_service_keeps_to_it_at_length(api: Any) -> None:
    assert check_operations(api, 300, derandomize=False) >= 6


def test_a_model_of_alignments_keeps_to_its_description(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "train.csv", make_rows(tmp_path))
    model = plait.fit(table, align=["photo", "text"], out=tmp_path / "run", overrides=FAST, quiet=True)
    model.index(table)
    with served(model.folder) as client:
        paths = client.get("/openapi.json").json()["paths"]
        assert {"/predict", "/search", "/classify", "/embed", "/media"} <= set(paths)
        check_operations(api_of(client), 12, derandomize=True)
