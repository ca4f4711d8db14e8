"""Pictures of pictures: labelled grids as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

PAPER, INK, GREY, GROUND = (252, 251, 247), (22, 42, 84), (120, 124, 134), (238, 236, 229)
MARGIN, GAP, GROUP_GAP, HEAD, LABELS, PADDING = 24, 4, 14, 34, 210, 5


class Row(NamedTuple):
    """One row of a grid. images: [columns * each, C, H, W] in [-1, 1], C 1 or 3."""

    title: str
    subtitle: str
    images: Tensor


def draw_grid(
    rows: Sequence[Row], columns: Sequence[str], *, title: str, subtitle: str, cell: int = 56
) -> Image:
    """A grid with a title, a label left of each row and one above each column.

    Every column takes as many neighbouring pictures as a row has for it. cell: side of an enlarged
    picture in pixels. Raises ImportError without Pillow, ValueError where rows do not fit.
    """
    image_module, draw_module = pillow()
    each = len(rows[0].images) // len(columns)
    for row in rows:
        if each < 1 or len(row.images) != each * len(columns):
            raise ValueError(
                f"draw_grid: row {row.title!r} has {len(row.images)} images, expected"
                f" {max(each, 1)} for each of {len(columns)} columns"
            )
    if rows[0].images.shape[1] not in (1, 3):
        raise ValueError(
            f"draw_grid: pictures have {rows[0].images.shape[1]} channels, expected 1 or 3"
        )
    column_width = each * cell + (each - 1) * GAP
    left = MARGIN + (LABELS if any(row.title for row in rows) else 0)
    top = MARGIN + 58 + HEAD
    grid_width = left + len(columns) * (column_width + GROUP_GAP) - GROUP_GAP
    text_width = MARGIN + max(_font(24).getlength(title), _font(15).getlength(subtitle))
    width = round(max(grid_width, text_width)) + MARGIN
    height = top + len(rows) * (cell + GROUP_GAP) - GROUP_GAP + MARGIN
    canvas = image_module.new("RGB", (width, height), GROUND)
    draw = draw_module.Draw(canvas)
    draw.text((MARGIN, MARGIN - 4), title, fill=INK, font=_font(24))
    draw.text((MARGIN, MARGIN + 28), subtitle, fill=GREY, font=_font(15))
    for index, name in enumerate(columns):
        center = left + index * (column_width + GROUP_GAP) + column_width // 2
        draw.text((center, top - 10), name, fill=GREY, font=_font(18), anchor="ms")
    for index, row in enumerate(rows):
        y = top + index * (cell + GROUP_GAP)
        _draw_label(draw, row, y, cell)
        for place, picture in enumerate(row.images):
            x = left + (place // each) * (column_width + GROUP_GAP) + (place % each) * (cell + GAP)
            canvas.paste(enlarged(picture, cell), (x, y))
    return canvas


def enlarged(picture: Tensor, side: int) -> Image:
    """One picture [C, H, W] in [-1, 1] as an image `side` pixels high and wide, smoothly.

    One channel is drawn as ink on paper, with an edge of paper: -1 is paper, 1 is ink.
    """
    image_module, _ = pillow()
    values = (picture.detach().float().cpu().clamp(-1, 1).numpy() + 1) / 2
    if len(values) != 1:
        return _resized(values.transpose(1, 2, 0) * 255, side)
    paper, ink = np.array(PAPER), np.array(INK)
    card = image_module.new("RGB", (side, side), PAPER)
    pixels = paper + values[0][..., None] * (ink - paper)
    card.paste(_resized(pixels, side - 2 * PADDING), (PADDING, PADDING))
    return card


def _resized(pixels: np.ndarray, side: int) -> Image:
    image_module, _ = pillow()
    small = image_module.fromarray(pixels.round().astype(np.uint8))
    return small.resize((side, side), image_module.Resampling.BICUBIC)


def save_png(image: Image, path: Path) -> None:
    """Write a PNG file, in a folder that is made if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, format="PNG", optimize=True)


def _draw_label(draw: ImageDraw, row: Row, y: int, cell: int) -> None:
    if row.title:
        draw.text((MARGIN, y + cell // 2 - 1), row.title, fill=INK, font=_font(18), anchor="ls")
        draw.text((MARGIN, y + cell // 2 + 5), row.subtitle, fill=GREY, font=_font(13), anchor="la")


def _font(size: int) -> FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)  # type: ignore[return-value]


def pillow() -> tuple[Any, Any]:
    """The modules Image and ImageDraw. Raises ImportError naming the extra they come with."""
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise ImportError("pictures need Pillow: pip install 'suffuse[demo]'") from error
    return Image, ImageDraw
