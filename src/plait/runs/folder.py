"""What a run is begun with: its table and the rows that train, its folder, and what a resume must agree
with.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from plait.errors import RecipeError
from plait.runs import files
from plait.table.table import Table


def folder_for(out: str | Path | None, resume: bool) -> Path:
    if out is None:
        if resume:
            raise RecipeError("resume= needs out=, the folder of the training that was stopped")
        base = Path("runs") / datetime.now().strftime("%Y-%m-%d-%H%M%S")
        out, count = base, 1
        while Path(out).exists():
            out, count = Path(f"{base}-{count}"), count + 1
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"out '{folder}' is a file; expected a folder")
    if resume and not (folder / "run.json").is_file():
        raise RecipeError(f"'{folder}' holds no training to go on with")
    if not resume and (folder / "weights.safetensors").is_file():
        raise RecipeError(
            f"'{folder}' already holds a trained model; choose another out=, or remove it first"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def content(table: Table) -> str:
    """A short hash of what a table holds: of each chunk the first thousand rows."""
    digest = hashlib.blake2b(digest_size=16)
    for column in table.data.columns:
        for chunk in column.chunks:
            digest.update(json.dumps(chunk.slice(0, 1000).to_pylist(), default=str).encode())
    return digest.hexdigest()


def begin(
    folder: Path,
    table: Table,
    recipe: dict[str, Any],
    sources: dict[str, Any],
    root: Any,
    targets: list[str],
    strict: bool,
    resumed: bool,
) -> None:
    """Writes what a later resume needs and must agree with, or checks it."""
    given = {
        side: str(Path(s).absolute()) if isinstance(s, (str, Path)) else None for side, s in sources.items()
    }
    now = {
        "rows": len(table),
        "columns": table.data.column_names,
        "content": content(table),
        "recipe": recipe,
        "sources": given,
        "root": None if root is None else str(Path(root).absolute()),
        "targets": targets,
        "strict": strict,
    }
    path = folder / "run.json"
    if not resumed:
        files.write_json(path, now)
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = [
        key
        for key in ("rows", "columns", "content", "recipe")
        if before.get(key) != json.loads(json.dumps(now[key]))
    ]
    if changed:
        raise RecipeError(
            f"cannot go on with '{folder}': its {' and '.join(changed)} differ from those it was begun with"
        )
