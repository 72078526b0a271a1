"""Renews what the README shows of the service's answers: docs/answer.png and the JSON example.

    .venv/bin/python tools/readme_answers.py

Starts the service, asks it over HTTP as `make demo` does, and puts down its answers as they come.
"""

from __future__ import annotations

import json
from pathlib import Path

import httpx
from PIL import Image, ImageDraw, ImageFont

from service.demo.__main__ import SAMPLES, Answer, ask, sample_paths
from service.demo.child import serve_command, serving

ROOT = Path(__file__).resolve().parents[1]

SCALE = 2  # drawn at twice the size and shown at half: sharp on every screen
CARD = (420, 132)
GAP = 12
COLUMNS = 2
INK, DIM, RIGHT, WRONG, TRACK = "#1f2933", "#7b8794", "#2f9e60", "#d08a1d", "#eef1f4"


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own typeface, so that the picture needs no font of this machine."""
    return ImageFont.load_default(size * SCALE)


def draw_card(canvas: Image.Image, answer: Answer, left: int, top: int) -> None:
    """One drawing with its best categories, each with a bar as long as its probability."""
    width, height = (side * SCALE for side in CARD)
    pen = ImageDraw.Draw(canvas)
    pen.rounded_rectangle(
        (left, top, left + width, top + height), 10 * SCALE, "white", "#dfe4e9", SCALE
    )
    side = height - 24 * SCALE
    with Image.open(SAMPLES / answer.name) as image:
        small = image.convert("RGBA").resize((side, side), Image.Resampling.LANCZOS)
    canvas.paste(small, (left + 14 * SCALE, top + 12 * SCALE), small)
    text_left, bar_right = left + side + 34 * SCALE, left + width - 18 * SCALE
    for rank, (label, probability) in enumerate(answer.matches):
        best = rank == 0
        y = top + (12 if best else 20 + rank * 36) * SCALE
        colour = (RIGHT if answer.right else WRONG) if best else DIM
        pen.text((text_left, y), label, INK if best else DIM, font(17 if best else 14))
        pen.text(
            (bar_right, y), f"{probability:.1%}", colour, font(17 if best else 14), anchor="ra"
        )
        bar_top = y + (25 if best else 20) * SCALE
        pen.rounded_rectangle((text_left, bar_top, bar_right, bar_top + 5 * SCALE), 5, TRACK)
        end = text_left + round((bar_right - text_left) * probability)
        if end - text_left > 10:
            pen.rounded_rectangle((text_left, bar_top, end, bar_top + 5 * SCALE), 5, colour)


def draw(answers: list[Answer]) -> Image.Image:
    """All cards on one sheet."""
    rows = -(-len(answers) // COLUMNS)
    size = (
        (COLUMNS * (CARD[0] + GAP) + GAP) * SCALE,
        (rows * (CARD[1] + GAP) + GAP) * SCALE,
    )
    canvas = Image.new("RGB", size, "#f6f8fa")
    for position, answer in enumerate(answers):
        row, column = divmod(position, COLUMNS)
        left, top = (GAP + column * (CARD[0] + GAP)) * SCALE, (GAP + row * (CARD[1] + GAP)) * SCALE
        draw_card(canvas, answer, left, top)
    return canvas


def example(client: httpx.Client) -> str:
    """The answer to the README's first command as a JSON block, numbers to three places."""
    path = SAMPLES / "umbrella.png"
    response = client.post(
        "/v1/classify", params={"top_k": 2}, files={"files": (path.name, path.read_bytes())}
    )
    answer = response.raise_for_status().json()
    matches = []
    for match in answer["results"][0]["matches"]:
        rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in match.items()}
        matches.append(json.dumps(rounded))
    answer["results"][0]["matches"] = ["MATCHES"]
    lines = (",\n" + " " * 8).join(matches)
    return json.dumps(answer, indent=2).replace('"MATCHES"', lines)


def main() -> None:
    """Ask, draw and write."""
    with (
        serving(serve_command(0)) as child,
        httpx.Client(base_url=child.url, timeout=60.0, trust_env=False) as client,
    ):
        answers = ask(client, sample_paths())
        block = example(client)
    draw(answers).save(ROOT / "docs" / "answer.png", optimize=True)
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    head, _, rest = text.partition("```json\n")
    tail = rest.partition("\n```\n")[2]
    readme.write_text(f"{head}```json\n{block}\n```\n{tail}", encoding="utf-8")
    print("wrote docs/answer.png and the example in README.md")


if __name__ == "__main__":
    main()
