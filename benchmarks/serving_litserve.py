"""The service of `serving.py`, with LitServe in place of plait's: serving_litserve.py RUN PORT BATCH"""

import sys
from typing import Any

import litserve
from fastapi import Request

import plait
from plait.media.cell import Nowhere


class Predicting(litserve.LitAPI):
    """A model of plait behind LitServe, which gathers batches and knows nothing of columns."""

    def setup(self, device: str) -> None:
        self.model = plait.load(sys.argv[1], quiet=True)
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


if __name__ == "__main__":
    batch = int(sys.argv[3])
    api = Predicting(max_batch_size=batch, batch_timeout=0.005 if batch > 1 else 0.0)
    server = litserve.LitServer(api, accelerator="cpu", timeout=60)
    server.run(port=int(sys.argv[2]), log_level="warning", generate_client_file=False)
