"""The plot of `bench`: how long clients wait at each load, on a logarithmic scale."""

from math import ceil, floor, log10

from modelyard.service.load import Speed

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 660, 400, 84, 600, 40, 330
LINES = (("p50_ms", "p50", "#1f5fbf"), ("p95_ms", "p95", "#b06a00"), ("p99_ms", "p99", "#b3261e"))
STYLE = "font: 13px system-ui, sans-serif; fill: #333"


def drawn(speed: Speed) -> str:
    """An SVG of the loads; of those without answers nothing is drawn."""
    loads = [load for load in speed.loads if load.p50_ms]
    waits = [float(getattr(load, name)) for load in loads for name, _, _ in LINES] or [1.0]
    low, high = floor(log10(min(waits))), max(ceil(log10(max(waits))), floor(log10(min(waits))) + 1)

    def across(place: int) -> float:
        return round(LEFT + (place + 0.5) / len(loads) * (RIGHT - LEFT), 1)

    def up(wait_ms: float) -> float:
        return round(BOTTOM - (log10(wait_ms) - low) / (high - low) * (BOTTOM - TOP), 1)

    parts = [_text(LEFT, 22, f"How long an answer takes: {speed.cores} cores", "start")]
    for power in range(low, high + 1):
        place = up(10.0**power)
        parts.append(f'<path d="M{LEFT} {place}H{RIGHT}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 8, place + 4, f"{10.0**power:g} ms", "end"))
    for name, label, colour in LINES:
        pairs = [(across(n), up(float(getattr(load, name)))) for n, load in enumerate(loads)]
        points = " ".join(f"{x},{y}" for x, y in pairs)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
        for x, y in pairs:
            parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>')
        if pairs:
            parts.append(_text(RIGHT + 4, pairs[-1][1] + 4, label, "start"))
    for place, load in enumerate(loads):
        parts.append(_text(across(place), BOTTOM + 20, f"{load.clients:,}", "middle"))
        told = f"{load.rows_per_s:,.0f} rows/s"
        parts.append(_text(across(place), BOTTOM + 36, told, "middle"))
    parts.append(_text((LEFT + RIGHT) / 2, HEIGHT - 8, "clients at once", "middle"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'style="background: #fff" role="img" aria-label="Waiting by rate">'
        f"{''.join(parts)}</svg>\n"
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" style="{STYLE}">{text}</text>'
