"""What a picture is painted on, by task type, before any style touches it.

An image task restyles its source. A text task has none and gets a landscape; inpainting fills what is pure white,
outpainting what it adds around the source, and both leave the rest as it was; a variation turns the source round;
Kontext does not keep its dimensions.
"""

import math

import attrs
from PIL import Image, ImageChops, ImageFilter, ImageOps

from piapi_async.emulator._art.landscape import landscape
from piapi_async.emulator._art.palette import curved
from piapi_async.emulator._art.spec import Order

_USUAL_SIDE = 1024
_WHITE = 254


@attrs.frozen
class Canvas:
    """A picture, and where the style goes."""

    image: Image.Image
    where: Image.Image | None = None
    """White where the style goes; None is everywhere."""

    def styled(self, picture: Image.Image, *, base: Image.Image) -> Image.Image:
        """Put a styled picture where it belongs on its base; both may have another size than the canvas."""
        if self.where is None:
            return picture
        return Image.composite(picture, base, self.where.resize(base.size))


def canvas_for(order: Order, sources: list[Image.Image]) -> Canvas:
    """The canvas of an order.

    Args:
        order: What was asked for.

        sources: The pictures of `order.images`, at least one where the task type needs one.
    """
    if not sources:
        return Canvas(_sized(_scene(order), order))
    if order.task_type == "fill-inpaint":
        return _inpainted(order, sources[0])
    if order.task_type == "fill-outpaint":
        return _outpainted(order, sources[0])
    if order.task_type == "redux-variation":
        return Canvas(ImageOps.mirror(sources[0]))
    if order.task_type == "kontext":
        return Canvas(_sized(sources[0], order))
    return Canvas(sources[0])


def _scene(order: Order) -> Image.Image:
    return landscape(f"{order.seed}/{order.item}/{order.prompt}")


def _sized(image: Image.Image, order: Order) -> Image.Image:
    """Cropped and scaled to the size that was asked for, within what is allowed."""
    width, height = order.width or _USUAL_SIDE, order.height or _USUAL_SIDE
    return ImageOps.fit(image, _scaled((width, height), _factor(width * height, order)))


def _inpainted(order: Order, image: Image.Image) -> Canvas:
    # Before any scaling, which would blur the border of what is pure white.
    red, green, blue = (curved(band, lambda v: 255 * (v >= _WHITE)) for band in image.split())
    white = ImageChops.darker(ImageChops.darker(red, green), blue)
    scene = ImageOps.fit(_scene(order), image.size)
    return Canvas(Image.composite(scene, image, white), white)


def _outpainted(order: Order, image: Image.Image) -> Canvas:
    left, right, top, bottom = order.margins
    whole = image.width + left + right, image.height + top + bottom
    factor = _factor(whole[0] * whole[1], order)
    size, inner = _scaled(whole, factor), image.resize(_scaled(image.size, factor))
    canvas = ImageOps.fit(inner, size).filter(ImageFilter.GaussianBlur(min(size) / 16))
    where = Image.new("L", size, 255)
    corner = int(left * factor), int(top * factor)
    canvas.paste(inner, corner)
    where.paste(0, (*corner, corner[0] + inner.width, corner[1] + inner.height))
    return Canvas(canvas, where)


def _factor(pixels: int, order: Order) -> float:
    return min(1.0, math.sqrt(order.max_pixels / pixels))


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, int(size[0] * factor)), max(1, int(size[1] * factor))
