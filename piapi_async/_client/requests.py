"""The service's requests, without I/O: what is asked becomes the parts of an HTTP request."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import attrs

from piapi_async._client.body import Base64, Content, as_json
from piapi_async._text import Secret
from piapi_async.task import Submittable, WebhookConfig


@attrs.frozen(kw_only=True)
class Call:
    """The parts of one HTTP request.

    Attributes:
        api_key: Goes into the header `X-API-Key`.

        body: A JSON text.

        secrets: What else must not appear in an error's message.
    """

    method: str
    url: str
    api_key: str = attrs.field(converter=Secret)
    body: Content | None = attrs.field(default=None, repr=False)
    secrets: tuple[str, ...] = attrs.field(default=(), repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """The headers, whose values show no secret in a `repr`."""
        headers = {"X-API-Key": self.api_key}
        return headers if self.body is None else {**headers, "Content-Type": "application/json"}


def encode_body(request: Submittable, *, task_input: Mapping[str, Any], webhook: WebhookConfig | None) -> Content:
    """The JSON body of a submit, with only what the user set.

    Raises:
        TypeError: The input holds something that is no JSON value.
        ValueError: The input holds a number that JSON does not have (NaN, infinity), or itself.
    """
    config: dict[str, Any] = {}
    if request.service_mode is not None:
        config["service_mode"] = request.service_mode
    if webhook is not None:
        config["webhook_config"] = {"endpoint": webhook.endpoint, "secret": webhook.secret}
    body = {"model": request.model, "task_type": request.task_type, "input": task_input}
    return as_json(body | ({"config": config} if config else {}))


def create_call(base_url: str, *, api_key: str, body: Content, secret: str = "") -> Call:
    """`POST /api/v1/task` (https://piapi.ai/docs/flux-api/image-to-image): the one call that costs money."""
    return Call(method="POST", url=f"{base_url}/api/v1/task", api_key=api_key, body=body, secrets=(secret,))


def task_call(base_url: str, *, api_key: str, task_id: str, method: str = "GET") -> Call:
    """`GET` polls a task (https://piapi.ai/docs/flux-api/get-task), `DELETE` cancels it."""
    url = f"{base_url}/api/v1/task/{quote(task_id, safe='', errors='replace')}"
    return Call(method=method, url=url, api_key=api_key)


def account_call(base_url: str, *, api_key: str) -> Call:
    """`GET /account/info` (https://piapi.ai/docs/account-info-api), which is free."""
    return Call(method="GET", url=f"{base_url}/account/info", api_key=api_key)


def upload_call(upload_url: str, *, api_key: str, name: str, data: bytes) -> Call:
    """`POST /api/ephemeral_resource` (https://piapi.ai/docs/tools/file-upload), which is free; the link lives 24 h."""
    body = as_json({"file_name": name, "file_data": Base64(data)})
    return Call(method="POST", url=f"{upload_url}/api/ephemeral_resource", api_key=api_key, body=body)
