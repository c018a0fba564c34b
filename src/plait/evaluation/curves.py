"""Draw the curves of a training as SVG, without a library that takes longer to import than to draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 420, 260  # of a panel
LEFT, RIGHT, BOTTOM = 56, 12, 40  # from the panel's edges to its axes
LINE = 16  # height of a line of the legend, which is above the axes
TICKS = 5  # on an axis, about
COLOURS = ("#3b6ea5", "#d9822b", "#4c9a52", "#b04a5a", "#7d5ba6", "#8a6d4b")


def curves(history: Sequence[Mapping[str, float]], panels: Sequence[Mapping[str, str]]) -> str:
    """Return an SVG with a panel for each mapping from the names of scores to their labels, over epochs.

    Leave out a score that the first epoch lacks.
    """
    width = WIDTH * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" '
        f'height="{HEIGHT}" font-family="system-ui, sans-serif" font-size="12" fill="#222">'
    ]
    for number, labels in enumerate(panels):
        parts.append(f'<g transform="translate({number * WIDTH} 0)">')
        parts += _panel(history, labels)
        parts.append("</g>")
    parts.append("</svg>")
    return "\n".join(parts)


def _panel(history: Sequence[Mapping[str, float]], labels: Mapping[str, str]) -> list[str]:
    """Draw the axes of a panel, a line for each score, and what each line is."""
    lines = {}
    for name, label in labels.items():
        if history and name in history[0]:
            lines[label] = [epoch.get(name, math.nan) for epoch in history]
    finite = [score for line in lines.values() for score in line if math.isfinite(score)]
    ticks = _ticks(min(finite, default=0.0), max(finite, default=1.0))
    low, high = ticks[0], ticks[-1]
    epochs = max(len(history), 2)
    top = LINE * (len(lines) + 1)

    def x(epoch: float) -> float:
        return LEFT + (epoch - 1) / (epochs - 1) * (WIDTH - LEFT - RIGHT)

    def y(score: float) -> float:
        return top + (high - score) / (high - low) * (HEIGHT - top - BOTTOM)

    bottom = HEIGHT - BOTTOM
    parts = [f'<path d="M{LEFT} {top}V{bottom}H{WIDTH - RIGHT}" fill="none" stroke="#444"/>']
    for tick in ticks:
        parts.append(f'<path d="M{LEFT - 4} {y(tick):.1f}h4" stroke="#444"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.6g}</text>')
    for epoch in _whole_ticks(epochs):
        parts.append(f'<path d="M{x(epoch):.1f} {bottom}v4" stroke="#444"/>')
        parts.append(f'<text x="{x(epoch):.1f}" y="{bottom + 17}" text-anchor="middle">{epoch}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">epoch</text>')

    for number, (label, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = []
        for epoch, score in enumerate(line, 1):
            if math.isfinite(score):
                points.append(f"{x(epoch):.1f},{y(score):.1f}")
        parts.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
        )
        text_y = LINE * (number + 1)
        parts.append(f'<path d="M{WIDTH - RIGHT - 18} {text_y - 4}h18" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{WIDTH - RIGHT - 24}" y="{text_y}" text-anchor="end">{escape(label)}</text>')
    return parts


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers, evenly spaced, from below the lowest to above the highest score."""
    spread = high - low or abs(high) or 1.0
    step = 10 ** math.floor(math.log10(spread / TICKS))
    for multiple in (1, 2, 5, 10):
        if spread / (step * multiple) <= TICKS:
            step *= multiple
            break
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _whole_ticks(epochs: int) -> list[int]:
    """Return the first epoch, and round numbers of epochs after it."""
    step = max(int(_ticks(0, epochs)[1]), 1)
    return [1, *range(step, epochs + 1, step)] if step > 1 else list(range(1, epochs + 1))
