"""GeoJSON: the properties of a map's features as a table, and where its points lie (RFC 7946)."""

from __future__ import annotations

from collections.abc import Mapping

from plait.errors import TableError, count

# Forms of maps whose features are not rows, or not all in one place.
OTHER_MAPS = ("Feature", "Topology")


def rows_of_map(value: Mapping[str, object], label: str) -> tuple[list[Mapping[str, object]], list[str]]:
    """Return a row for each feature of a collection, and notes on what was left out.

    A row has the feature's properties, its id, and `longitude` and `latitude` if it is a point. Raises
    `TableError` for a collection without features.
    """
    features = value.get("features")
    if not isinstance(features, list) or not features:
        raise TableError(f"'{label}' is a map without features, not a table")
    rows: list[Mapping[str, object]] = []
    shapes = 0
    for number, feature in enumerate(features):
        if not isinstance(feature, Mapping):
            raise TableError(f"'{label}': feature {number} is no object")
        properties = feature.get("properties")
        place = _place(feature.get("geometry"))
        shapes += feature.get("geometry") is not None and not place
        row = dict(properties) if isinstance(properties, Mapping) else {}
        if "id" in feature:
            row.setdefault("id", feature["id"])
        rows.append({**place, **row})

    notes = []
    if shapes:
        notes.append(f"{label}: {count(shapes, 'line or area', 'lines and areas')} of the map left out")
    return rows, notes


def _place(geometry: object) -> dict[str, object]:
    """Return the longitude and latitude of a point; nothing for lines and areas."""
    if not isinstance(geometry, Mapping) or geometry.get("type") != "Point":
        return {}
    coordinates = geometry.get("coordinates")
    if not isinstance(coordinates, list) or len(coordinates) < 2:
        return {}
    return {"longitude": coordinates[0], "latitude": coordinates[1]}
