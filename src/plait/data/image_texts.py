"""The text in images as a column of its own: `photo.text` is read out of the images in `photo`.

It is read only where the recipe names it, because it takes a second or so for each image.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pyarrow as pa

from plait.console import Screen
from plait.data.prepare import store
from plait.errors import count
from plait.media import ocr
from plait.media.cell import Store
from plait.media.loading import load_together
from plait.runs.deadline import NO_LIMIT, Deadline
from plait.table.schema import TEXT
from plait.table.table import Source, Table


def with_image_texts(
    table: Table,
    inputs: Collection[str],
    screen: Screen,
    deadline: Deadline = NO_LIMIT,
    cells: Store | None = None,
) -> Table:
    """Add a column for each input `X.text` that the table lacks, if it has the images `X`.

    A cell is null where the image is missing, has no text, or cannot be read; then `bad` says why. `cells`
    is the store of texts that have been read; None for the user's cache. Raises `RecipeError` if RapidOCR is
    not installed, and `TrainingError` if the time is over.
    """
    for name in inputs:
        images = name.removesuffix(TEXT)
        if name.endswith(TEXT) and name not in table.data.column_names and images in table.data.column_names:
            ocr.check_installed(name)
            table = _with_texts(table, images, name, screen, deadline, cells)
    return table


def _with_texts(
    table: Table, images: str, name: str, screen: Screen, deadline: Deadline, cells: Store | None
) -> Table:
    """Add one column of texts."""
    opened = store(screen, table) if cells is None else nullcontext(cells)
    with screen.bar(f"reading the text in {images}", len(table)) as bar, opened as cache:
        advance = deadline.watched(bar.advance, "the text in images was read")
        source = Source(name, table.root, advance, cache)
        (loaded,) = load_together([ocr.ImageText()], table.column(images), [source])

    texts: list[str | None] = [None] * len(table)
    lengths = loaded.values.length_B
    assert lengths is not None
    owners = list(range(len(table)))
    if loaded.values.count_B is not None:  # each cell is a list of images
        owners = np.repeat(owners, loaded.values.count_B.numpy()).tolist()
    for row, letters, length in zip(owners, loaded.values.x.numpy(), lengths.tolist(), strict=True):
        text = letters[:length].tobytes().decode().strip()
        if text:
            texts[row] = "\n".join(filter(None, [texts[row], text]))

    with_text = sum(text is not None for text in texts)
    screen.say(f"{name}: {count(with_text, 'image')} of {len(table):,} with text")
    bad = {problem.row: problem.reason for problem in loaded.problems}
    data = table.data.append_column(name, pa.array(texts, pa.string()))
    lacks = {**table.lacks, name: ~table.has(images)}
    return replace(table, data=data, bad={**table.bad, name: bad}, lacks=lacks)
