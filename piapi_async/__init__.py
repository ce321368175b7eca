"""Asyncio SDK for PiAPI's Flux image-to-image API.

`Session` submits tasks and waits for them, `Img2Img` and its siblings say what is asked for, `TaskInfo` is what came of
it. Errors are in `piapi_async.errors`, the local server to try it all on in `piapi_async.emulator`.
"""

from typing import TYPE_CHECKING

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
    from piapi_async.account import Account
    from piapi_async.batch import Batch
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

    __version__: str
else:
    # Each module is imported when a name of it is first used (PEP 562): the pytest plugin, which pytest loads in every
    # project beside which this package is installed, the emulator and the command line's help need no `Session`.
    _EXPORTS = {
        "account": ["Account"],
        "batch": ["Batch"],
        "errors": ["PiAPIError", "SubmissionInDoubtError", "TaskFailedError", "WaitTimeoutError"],
        "events": [],
        "files": [],
        "flux": [
            *("ControlNet", "ControlNetLora", "FillInpaint", "FillOutpaint", "Img2Img", "Img2ImgLora", "Kontext"),
            *("LoRA", "ReduxVariation", "Txt2Img", "Txt2ImgLora"),
        ],
        "handle": ["TaskHandle"],
        "limits": ["Governor"],
        "picture": ["Picture"],
        "polling": ["Backoff", "Learned", "Polling"],
        "prices": [],
        "retry": ["RetryPolicy"],
        "session": ["Session"],
        "task": ["Image", "TaskInfo", "TaskRequest", "TaskStatus", "Usage", "WebhookConfig"],
    }
    _HOMES = {name: module for module, names in _EXPORTS.items() for name in names}

    def __getattr__(name: str) -> object:
        from importlib import import_module  # noqa: PLC0415

        if name in _EXPORTS:
            return import_module(f"{__name__}.{name}")
        if name in _HOMES:
            value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        elif name == "__version__":
            from importlib import metadata  # noqa: PLC0415 - slow, and rarely asked for

            value = metadata.version(__name__)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value  # so that this function is not asked again
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_EXPORTS})
