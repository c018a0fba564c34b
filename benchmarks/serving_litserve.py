"""The service of `serving.py`, with LitServe in place of plait's."""

from typing import Any

import litserve
from fastapi import Request

import plait
from plait.media.cell import Nowhere


class Predicting(litserve.LitAPI):
    """A model of plait behind LitServe, which gathers batches and knows nothing of columns."""

    def __init__(self, run: str, **options: Any) -> None:
        super().__init__(**options)
        self.run = run

    def setup(self, device: str) -> None:
        self.model = plait.load(self.run, quiet=True)
        self.model.cells = Nowhere()

    def decode_request(self, request: Request) -> dict[str, Any]:
        row = {}
        for name, cell in request.items():
            row[name] = cell if isinstance(cell, str) else cell.file.read()
        return row

    def predict(self, rows: Any) -> Any:
        if isinstance(rows, dict):  # without batches
            return self.model.predict(rows).to_pylist()[0]
        return self.model.predict(rows).to_pylist()

    def batch(self, inputs: list[Any]) -> Any:
        return list(inputs)

    def unbatch(self, output: Any) -> Any:
        return output

    def encode_response(self, output: Any) -> Any:
        return output


def serve(run: str, port: int, batch: int) -> None:
    """Serve the model in a folder until the process is told to stop."""
    api = Predicting(run, max_batch_size=batch, batch_timeout=0.005 if batch > 1 else 0.0)
    server = litserve.LitServer(api, accelerator="cpu", timeout=60)
    server.run(port=port, log_level="warning", generate_client_file=False)
