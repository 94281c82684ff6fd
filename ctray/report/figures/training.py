"""Training curves."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ctray.report.figures.lines import BLUE, GREY, INK, ORANGE, Line, drawing_style
from ctray.report.figures.parts import (
    LEFT,
    RIGHT,
    TICKS,
    TITLE,
    WIDTH,
    add_panel,
    name_axis,
    open_frame,
)

_HEIGHT = 180.0
# Lines of a training curve: prefix of the metric's name, style, label.
_CURVES = (
    ("", Line(INK, 1.4), "each step"),
    ("training_", Line(BLUE, 1.4), "training volumes"),
    ("validation_", Line(ORANGE, 1.8), "held-out volumes"),
)


def training_figure(metrics: Sequence[dict[str, float]], name: str, guessing: float) -> Figure:
    """Draw one metric over the training steps, with its value for a random guess."""
    last = max(row["step"] for row in metrics)
    with drawing_style():
        figure = Figure(figsize=(WIDTH / 72, _HEIGHT / 72), dpi=72)
        size = (WIDTH - LEFT - 2 * RIGHT, _HEIGHT - TITLE - TICKS)
        axes = add_panel(figure, metric_title(name), (LEFT, _HEIGHT), *size)
        for prefix, line, label in _CURVES:
            rows = [row for row in metrics if prefix + name in row]
            if rows:
                values = [row[prefix + name] for row in rows]
                axes.plot([row["step"] for row in rows], values, label=label, **line.style())
        open_frame(axes)
        axes.set_xlim(0, last)
        name_axis(axes.xaxis, "step", int(last))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_ylim(0, 1.05 * axes.dataLim.ymax)
        if len(axes.lines) > 1:
            axes.legend(frameon=False, loc="upper left" if name == "accuracy" else "lower left")
        if name != "loss":
            _draw_guess(axes, guessing, above=name == "accuracy")
    return figure


def _draw_guess(axes: Axes, guessing: float, *, above: bool) -> None:
    """Draw the line of a random guess, with its label above or below it."""
    axes.set_ylim(0, 1 if above else 1.1 * guessing)
    axes.axhline(guessing, **Line(GREY, 1.0, (1, 2)).style())
    place = (axes.get_xlim()[1], guessing + 0.02 if above else guessing * 0.99)
    side = "bottom" if above else "top"
    axes.text(*place, f"random guess {guessing:.2f}", color=GREY, ha="right", va=side)


def metric_title(name: str) -> str:
    """Title of a metric."""
    return {"displacement": "Mean displacement"}.get(name, name.capitalize())
