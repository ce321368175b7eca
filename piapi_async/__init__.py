"""Asyncio SDK for PiAPI's Flux image-to-image API.

`Session` submits tasks and waits for them, `Img2Img` and its siblings say what is asked for, `TaskInfo` is what came of
it. Errors are in `piapi_async.errors`, the local server to try it all on in `piapi_async.emulator`.
"""

from typing import TYPE_CHECKING

from piapi_async.account import Account
from piapi_async.errors import PiAPIError, SubmissionInDoubtError, TaskFailedError, WaitTimeoutError
from piapi_async.flux import (
    ControlNet,
    ControlNetLora,
    FillInpaint,
    FillOutpaint,
    Img2Img,
    Img2ImgLora,
    Kontext,
    LoRA,
    ReduxVariation,
    Txt2Img,
    Txt2ImgLora,
)
from piapi_async.handle import TaskHandle
from piapi_async.limits import Governor
from piapi_async.picture import Picture
from piapi_async.polling import Backoff, Learned, Polling
from piapi_async.retry import RetryPolicy
from piapi_async.session import Session
from piapi_async.task import Image, TaskInfo, TaskRequest, TaskStatus, Usage, WebhookConfig

__all__ = [
    "Account",
    "Backoff",
    "Batch",
    "ControlNet",
    "ControlNetLora",
    "FillInpaint",
    "FillOutpaint",
    "Governor",
    "Image",
    "Img2Img",
    "Img2ImgLora",
    "Kontext",
    "Learned",
    "LoRA",
    "PiAPIError",
    "Picture",
    "Polling",
    "ReduxVariation",
    "RetryPolicy",
    "Session",
    "SubmissionInDoubtError",
    "TaskFailedError",
    "TaskHandle",
    "TaskInfo",
    "TaskRequest",
    "TaskStatus",
    "Txt2Img",
    "Txt2ImgLora",
    "Usage",
    "WaitTimeoutError",
    "WebhookConfig",
]


if TYPE_CHECKING:
    from piapi_async.batch import Batch

    __version__: str
else:

    def __getattr__(name: str) -> object:
        if name == "Batch":
            from piapi_async.batch import Batch  # noqa: PLC0415 - brings the ledger along, and not all need it

            return Batch
        if name == "__version__":
            from importlib.metadata import version  # noqa: PLC0415 - slow, and rarely asked for

            return version("piapi_async")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
