"""Drawings of a graph: Mermaid text, and an SVG that needs nothing else. Both are the same for the same config."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Final

from streamer.checks import Plan
from streamer.node import Node, Sink, Source

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 150, 46, 70, 26, 24
COLOURS: Final = ("#e3eefb", "#e6f4e4", "#fdf0dc", "#f3e6f7", "#fbe4e4", "#e4f5f5")
END_COLOUR: Final = "#f2f2f2"
TIP: Final = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<path d="M0 0L8 4L0 8z" fill="#555"/></marker></defs>'
)


def mermaid(plan: Plan) -> str:
    """A Mermaid flowchart: lanes as boxes, kinds on the edges, feedback dotted."""
    lines = ["flowchart LR"]
    for name in plan.order:
        if issubclass(plan.types[name], Source):
            lines.append(f'  {_id(name)}(["{_label(plan, name)}"])')
        elif issubclass(plan.types[name], Sink):
            lines.append(f'  {_id(name)}[/"{_label(plan, name)}"/]')
    for lane, members in plan.lanes.items():
        lines.append(f'  subgraph {_id("lane_" + lane)}["lane {lane}"]')
        lines += [f'    {_id(name)}["{_label(plan, name)}"]' for name in members]
        lines.append("  end")
    for port in plan.ports:
        arrow = "-.->" if port.side else "-->"
        lines.append(f"  {_id(port.producer)} {arrow}|{port.kind}| {_id(port.consumer)}")
    return "\n".join(lines) + "\n"


def _id(name: str) -> str:
    return "n_" + name.replace("-", "_m")


def _label(plan: Plan, name: str) -> str:
    kind = plan.types[name].type_name
    return name if kind == name else f"{name} ({kind})"


def svg(plan: Plan) -> str:
    """A self-contained SVG: columns along the edges, one colour per lane, the kind beside each arrow."""
    places = _places(plan)
    columns = 1 + max(column for column, _ in places.values())
    rows = 1 + max(row for _, row in places.values())
    width = 2 * MARGIN + columns * WIDTH + (columns - 1) * GAP_X
    height = 2 * MARGIN + rows * HEIGHT + (rows - 1) * GAP_Y + 18 * len(plan.lanes)
    colours = {lane: COLOURS[i % len(COLOURS)] for i, lane in enumerate(plan.lanes)}
    parts = [
        _head(width, height),
        "<title>streamer graph</title>",
        TIP,
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    parts += _arrows(plan, places)
    for name in plan.order:
        lane = next((lane for lane, members in plan.lanes.items() if name in members), None)
        parts.append(_box(plan, name, places[name], colours[lane] if lane else END_COLOUR))
    parts += _legend(colours, height)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _head(width: int, height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="13" role="img">'
    )


def _places(plan: Plan) -> dict[str, tuple[int, int]]:
    """`(column, row)` of each node: one column after the farthest of what feeds it."""
    column: dict[str, int] = {}
    rows: dict[int, int] = {}
    places: dict[str, tuple[int, int]] = {}
    for name in plan.order:
        feeds = [column[p.producer] for p in plan.ports if p.consumer == name and not p.feedback]
        column[name] = 1 + max(feeds, default=-1)
        row = rows.get(column[name], 0)
        rows[column[name]] = row + 1
        places[name] = (column[name], row)
    return places


def _corner(place: tuple[int, int]) -> tuple[int, int]:
    return MARGIN + place[0] * (WIDTH + GAP_X), MARGIN + place[1] * (HEIGHT + GAP_Y)


def _arrows(plan: Plan, places: Mapping[str, tuple[int, int]]) -> list[str]:
    made: list[str] = []
    for port in plan.ports:
        x, y = _corner(places[port.producer])
        to_x, to_y = _corner(places[port.consumer])
        x, y, to_y = x + WIDTH, y + HEIGHT // 2, to_y + HEIGHT // 2
        dash = ' stroke-dasharray="5 4"' if port.side else ""
        bend = GAP_X // 2
        path = f"M{x} {y}C{x + bend} {y} {to_x - bend} {to_y} {to_x} {to_y}"
        made.append(f'<path d="{path}" fill="none" stroke="#555"{dash} marker-end="url(#tip)"/>')
        text_x, text_y = (x + to_x) // 2, (y + to_y) // 2 - 5
        made.append(
            f'<text x="{text_x}" y="{text_y}" text-anchor="middle" font-size="11" fill="#555">{port.kind}</text>'
        )
    return made


def _box(plan: Plan, name: str, place: tuple[int, int], colour: str) -> str:
    x, y = _corner(place)
    radius = 6 if issubclass(plan.types[name], Node) else HEIGHT // 2
    kind = escape(plan.types[name].type_name)
    return (
        f'<g><rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="{radius}" fill="{colour}" stroke="#555"/>'
        f'<text x="{x + WIDTH // 2}" y="{y + 20}" text-anchor="middle">{escape(name)}</text>'
        f'<text x="{x + WIDTH // 2}" y="{y + 36}" text-anchor="middle" font-size="11" fill="#555">{kind}</text></g>'
    )


def _legend(colours: Mapping[str, str], height: int) -> list[str]:
    made: list[str] = []
    for i, (lane, colour) in enumerate(colours.items()):
        y = height - 18 * (len(colours) - i)
        made.append(f'<rect x="{MARGIN}" y="{y}" width="12" height="12" fill="{colour}" stroke="#555"/>')
        made.append(f'<text x="{MARGIN + 18}" y="{y + 11}" font-size="11">lane {escape(lane)}</text>')
    return made
