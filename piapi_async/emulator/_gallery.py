"""Finished pictures: made in a thread when first asked for, and kept for a while."""

import asyncio
import importlib
import weakref
from collections import OrderedDict

from piapi_async.emulator._fetch import fetch
from piapi_async.emulator._lifecycle import Task
from piapi_async.emulator._order import Order
from piapi_async.emulator._sources import inline, is_url
from piapi_async.emulator._validation import Refusal
from piapi_async.emulator.options import Options

_KEPT_BYTES = 64 * 2**20


class Gallery:
    """The pictures of one emulator; at most 64 MiB of them stay in memory, the last used ones.

    Args:
        options: Seed, sizes, and what to do about images that cannot be had.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._size = 0
        self._locks: weakref.WeakValueDictionary[bytes, asyncio.Lock] = weakref.WeakValueDictionary()

    async def picture(self, task: Task, *, item: int) -> bytes | None:
        """One picture of a task as PNG; None when one of its images cannot be had and no placeholder is wanted.

        Raises:
            Refusal: Pillow is not installed.
        """
        options = self._options
        order = Order.of(task.input, item=item, seed=options.seed, max_pixels=options.max_pixels)
        async with self._locks.setdefault(order.key, asyncio.Lock()):
            if order.key not in self._kept:
                await self._make(order)
            return self._take(order.key)

    async def _make(self, order: Order) -> None:
        images = [await fetch(value) if is_url(value) else inline(value) for value in order.images]
        fallbacks = self._options.unreachable_images == "placeholder"
        png = await asyncio.to_thread(_paint, order, images=images, fallbacks=fallbacks)
        if png is not None:
            self._kept[order.key] = png
            self._size += len(png)

    def _take(self, key: bytes) -> bytes | None:
        png = self._kept.get(key)
        if png is not None:
            self._kept.move_to_end(key)
        while self._size > _KEPT_BYTES:
            self._size -= len(self._kept.popitem(last=False)[1])
        return png


def _paint(order: Order, *, images: list[bytes | None], fallbacks: bool) -> bytes | None:
    try:
        # Here, and not above, so that an emulator without Pillow does everything but draw.
        pictures = importlib.import_module("piapi_async.emulator._pictures")
    except ImportError:
        raise Refusal(501, "pictures need Pillow: pip install 'piapi_async[emulator]'") from None
    png: bytes | None = pictures.paint(order, images=images, fallbacks=fallbacks)
    return png
