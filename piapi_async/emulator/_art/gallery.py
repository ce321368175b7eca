"""Finished pictures: made in a thread when first asked for, and kept for a while."""

import asyncio
import importlib
import weakref
from collections import OrderedDict
from typing import Any

from piapi_async.emulator._art.fetch import fetch
from piapi_async.emulator._art.spec import Order
from piapi_async.emulator._service.lifecycle import Task
from piapi_async.emulator._service.settings import Settings
from piapi_async.emulator._service.sources import image_values, inline, is_url
from piapi_async.emulator._service.validation import Refusal

_KEPT_BYTES = 64 * 2**20


class Gallery:
    """The pictures of one emulator; at most 64 MiB of them stay in memory, the last used ones.

    Args:
        settings: Seed, sizes, and what to do about images that cannot be had.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._size = 0
        self._locks: weakref.WeakValueDictionary[bytes, asyncio.Lock] = weakref.WeakValueDictionary()

    async def picture(self, task: Task, *, item: int) -> bytes | None:
        """One picture of a task as PNG; None when one of its images cannot be had and no placeholder is wanted.

        Raises:
            Refusal: Pillow is not installed.
        """
        options = self._settings.current
        order = Order.of(
            task.input,
            item=item,
            seed=options.seed,
            max_pixels=options.max_pixels,
            task_type=task.task_type,
            is_guide=task.has_guide and item == len(task.result_ids) - 1,
        )
        async with self._locks.setdefault(order.key, asyncio.Lock()):
            if order.key not in self._kept:
                await self._make(order)
            return self._take(order.key)

    async def thumbnail(self, task: Task) -> bytes | None:
        """The first image that was sent, small, as PNG; None when there is none that can be had.

        Raises:
            Refusal: Pillow is not installed.
        """
        for name in image_values(task.input)[:1]:
            return await self._draw("thumbnail", name, image=await _bytes(name))
        return None

    async def _make(self, order: Order) -> None:
        images = [await _bytes(value) for value in order.images]
        png = await self._draw("paint", order, images=images)
        if png is not None:
            self._kept[order.key] = png
            self._size += len(png)

    async def _draw(self, what: str, subject: Order | str, **images: Any) -> bytes | None:
        fallbacks = self._settings.current.unreachable_images == "placeholder"
        return await asyncio.to_thread(_drawn, what, subject, fallbacks=fallbacks, **images)

    def _take(self, key: bytes) -> bytes | None:
        png = self._kept.get(key)
        if png is not None:
            self._kept.move_to_end(key)
        while self._size > _KEPT_BYTES:
            self._size -= len(self._kept.popitem(last=False)[1])
        return png


async def _bytes(value: str) -> bytes | None:
    return await fetch(value) if is_url(value) else inline(value)


def _drawn(what: str, subject: Order | str, **given: Any) -> bytes | None:
    try:
        # Here, and not above, so that an emulator without Pillow does everything but draw.
        pictures = importlib.import_module("piapi_async.emulator._art.pictures")
    except ImportError:
        raise Refusal(501, "pictures need Pillow: pip install pillow") from None
    png: bytes | None = getattr(pictures, what)(subject, **given)
    return png
