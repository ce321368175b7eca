"""The documented examples, sent and compared: same keys, same types."""

from typing import Any

import pytest
from support.examples import FIXTURES, example, shape
from support.receiver import Receiver
from support.rig import Api, MakeApi

REQUESTS = sorted(path.stem for path in FIXTURES.glob("*-request.json") if path.stem != "upload-request")


async def test_the_documented_create_gets_the_documented_answer(api: Api) -> None:
    """4.1 (D I2I): the seed page's request, answered key by key and type by type."""
    reply = await api.send("POST", "/api/v1/task", json=example("create-request"))
    expected = example("create-response")
    assert shape(reply.json) == shape(expected)
    same = ("model", "task_type", "status", "config", "input", "output", "detail", "logs", "error")
    assert {name: reply.json["data"][name] for name in same} == {name: expected["data"][name] for name in same}


async def test_the_documented_kontext_task_polls_as_documented(api: Api) -> None:
    """4.2 (D KON): the newest full example of a completed Flux task."""
    request = example("kontext-request")
    data = await api.finished(request)
    expected = example("completed")["data"]
    assert shape({**data, "input": {}}) == shape({**expected, "input": {}})
    assert data["input"].items() >= request["input"].items()
    assert data["meta"]["usage"] == expected["meta"]["usage"]


def _first(output: dict[str, Any]) -> str:
    """The link of the first picture, of one or of several."""
    link: str = output.get("image_url") or output["image_urls"][0]
    return link


@pytest.mark.parametrize("name", REQUESTS)
async def test_every_documented_request_is_accepted_and_completes(api: Api, name: str) -> None:
    """2.3, 2.4, 2.7 (D): create, LoRA, ControlNet, txt2img, outpaint and Kontext as their pages show them."""
    request = example(name)
    data = await api.finished(request)
    assert (data["status"], data["task_type"]) == ("completed", request["task_type"])
    assert data["input"].items() >= request["input"].items()
    assert (await api.send("GET", _first(data["output"]))).body.startswith(b"\x89PNG")


async def test_the_get_task_page_can_be_imitated(make_api: MakeApi) -> None:
    """4.3 (D GET): `success`, output keys, zero times, no usage."""
    api = await make_api(status_words="flux-page", usage="absent", unset_times="zero-while-processing")
    data, expected = await api.finished(), example("get-task-page")
    assert (data["status"], shape(data["output"])) == (expected["status"], shape(expected["output"]))
    assert expected["meta"].keys() <= data["meta"].keys()
    assert "usage" not in data["meta"]


async def test_cancel_answers_as_documented(api: Api) -> None:
    """1.3.1 (D CANC): code and message, no data."""
    task_id = (await api.create())["task_id"]
    reply = await api.send("DELETE", f"/api/v1/task/{task_id}")
    expected: dict[str, Any] = example("cancel-response")
    assert shape(reply.json) == shape(expected)
    assert reply.json["message"] == expected["message"].replace("170b8a42-xxxx-xxxx-xxxx-xxxxxxx8c79e", task_id)


async def test_a_webhook_brings_the_documented_body(make_api: MakeApi) -> None:
    """3.2 (D WH): timestamp in unix seconds, and the data of get-task."""
    api = await make_api()
    async with Receiver() as receiver:
        request = example("kontext-request")
        await api.create({**request, "config": {"webhook_config": {"endpoint": receiver.url, "secret": ""}}})
        body, expected = (await receiver.count(1))[0].json, example("webhook")
        for each in (body, expected):
            each["data"]["input"] = {}
        assert shape(body) == shape(expected)


async def test_an_upload_is_answered_as_it_was_seen(api: Api) -> None:
    """1.3.5 (D UP for the request, T for the answer)."""
    reply = await api.send("POST", "/api/ephemeral_resource", json=example("upload-request"))
    assert shape(reply.json) == shape(example("upload-response"))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("account", "/account/info"),
        ("active-tasks", "/account/active_tasks"),
        ("history", "/api/open/tasks/histories"),
    ],
)
async def test_account_active_tasks_and_history_have_the_documented_fields(api: Api, name: str, path: str) -> None:
    """1.3.2 (D ACC), 1.3.3 (D TL), 1.3.4 (D HIST)."""
    await api.finished(example("kontext-request"))
    reply = await api.send("GET", path)
    assert shape(reply.json) == shape(example(name))
