"""`Session`: where tasks are submitted, waited for and saved."""

import warnings
from collections.abc import AsyncIterator, Collection, Iterable
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import aiohttp

from piapi_async import (
    _candidates,
    _session_options,
    _text,
    _validators,
    errors,
    events,
)
from piapi_async._asyncio import Clock
from piapi_async._client.api import Api, Journal, OnCancel, Submission
from piapi_async._client.budget import Budget
from piapi_async._client.transport import DEFAULT_TIMEOUT, Transport, time_limits
from piapi_async._fingerprint import Content, content_of
from piapi_async._images import sources
from piapi_async._images.uploads import Uploads
from piapi_async.account import Account
from piapi_async.flux import ImageSource
from piapi_async.handle import NO_LIMIT, TaskHandle, wait_limit
from piapi_async.limits import Governor
from piapi_async.polling import UNSET, Polling, Unset
from piapi_async.prices import POINTS_PER_USD, PRICES, PriceList
from piapi_async.retry import RetryPolicy
from piapi_async.task import Image, Submittable, TaskInfo, WebhookConfig

if TYPE_CHECKING:
    from piapi_async.files import Downloads
    from piapi_async.picture import Picture

NO_JOURNAL = Journal()


class Session:
    """An account at PiAPI, and the connections to it.

    Use it with `async with`, or call `aclose` at the end; of several such blocks at once the last one closes it.
    Nothing is sent before the first call, and one session may be used in several `asyncio.run` one after the other. Any
    number of its coroutines may run at once.

    Args:
        api_key: The account's key; by default the environment variable `PIAPI_API_KEY`.

        base_url: Where the service is; by default the environment variable `PIAPI_BASE_URL`, else the real service.

        upload_url: Where its upload is; by default the environment variable `PIAPI_UPLOAD_URL`, else the real one for
            the real service, and `base_url` for any other, so that no key goes where it does not belong.

        http: An aiohttp session of your own to use, in its own event loop; it is never closed here. Its proxies,
            certificates (`TCPConnector(ssl=...)`) and cookies hold, its time limits do not. Its headers, login and
            cookies go to the API and the upload, and are not sent along when pictures are fetched. A middleware of its
            that repeats requests would pay twice.

        trust_env: Whether the proxies of the environment are used: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, but for
            the hosts in `NO_PROXY` and this machine itself. `~/.netrc` is never read. A certificate authority of your
            own is told to Python by `SSL_CERT_FILE`, or given with `http`.

        allow_http: Whether `base_url` and `upload_url` may be plain `http://` URLs of public hosts, to which the key
            would travel unencrypted.

        timeout: Time limits of one request: seconds > 0 in all, or an `aiohttp.ClientTimeout`; 120 s in all and 10 s
            to connect by default.

        retry: How submits, single polls, cancels and downloads are tried again.

        polling: How tasks are waited for.

        governor: The budget of the account; pass one object to several sessions to share it.

        max_in_flight: How many tasks are kept in flight at once, in place of a governor with that number; `"account"`
            for as many as the account may have.

        max_spend_usd: The most that the tasks submitted here may cost, in US dollars, by the estimates of those not
            over and what the service charged for the others; `None` for no limit.

        prices: What tasks are expected to cost.

        on_cancel: What becomes of a task when the last coroutine that waits for it in this session is cancelled:
            `"detach"` leaves it alone, so it may still be billed; `"cancel"` asks the service to cancel it.

        local_images: How local pictures travel: `"data-uri"` inside the request, or `"upload"` as links to the
            service's upload, which needs its Creator plan or higher. A link lives for 24 h; the same content is
            uploaded again after 23 h. The upload takes at most 10 MiB a picture.

        max_image_bytes: The largest local picture that is sent, in bytes as it is sent; 10 MiB by default.

        max_pixels: The most pixels of a local picture: a larger one is scaled down, which needs Pillow.

        observers: Plain functions that are called with every event (`piapi_async.events`).

    Raises:
        ConfigurationError: There is no key, a URL is bad, arguments contradict each other, or Pillow is missing.
        TypeError: An argument has the wrong type.
        ValueError: A number is out of its range.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        upload_url: str | None = None,
        http: aiohttp.ClientSession | None = None,
        trust_env: bool = True,
        allow_http: bool = False,
        timeout: aiohttp.ClientTimeout | float = DEFAULT_TIMEOUT,
        retry: RetryPolicy | None = None,
        polling: Polling | None = None,
        governor: Governor | None = None,
        max_in_flight: int | Literal["account"] | None = None,
        max_spend_usd: float | None = None,
        prices: PriceList = PRICES,
        on_cancel: OnCancel = "detach",
        local_images: _session_options.LocalImages = "data-uri",
        max_image_bytes: int = sources.IMAGE_MAX,
        max_pixels: int | None = None,
        observers: Iterable[events.Observer] = (),
    ) -> None:
        api_key = _text.masked(api_key)  # first of all: a traceback with local variables would show it
        _session_options.kind("http", http, aiohttp.ClientSession | None)
        _session_options.kind("retry", retry, RetryPolicy | None)
        _session_options.kind("polling", polling, Polling | None)
        _session_options.kind("governor", governor, Governor | None)
        _session_options.kind("prices", prices, PriceList)
        clock = Clock()
        limits = time_limits(timeout)
        self._own_tasks = _candidates.OwnTasks()
        self._entered = 0
        self._transport = Transport(http=http, timeout=limits, trust_env=trust_env, clock=clock)
        self._polling = polling or Polling()
        url = _session_options.base_url(base_url, allow_http=allow_http)
        self._api = Api(
            api_key=_session_options.api_key(api_key),
            base_url=url,
            upload_url=_session_options.upload_url(upload_url, base_url=url, allow_http=allow_http),
            transport=self._transport,
            retry=retry or RetryPolicy(),
            governor=_session_options.governor(governor, max_in_flight=max_in_flight),
            budget=Budget(prices=prices, limit=_session_options.points(max_spend_usd)),
            clock=clock,
            on_cancel=_session_options.on_cancel(on_cancel),
            announce=events.Announcer((self._own_tasks, *_session_options.observers(observers))),
        )
        self._rules = _session_options.rules(max_bytes=max_image_bytes, max_pixels=max_pixels)
        self._uploads = Uploads(self._api, rules=self._rules)
        self._linked = self._uploads.link if _session_options.local_images(local_images) == "upload" else None

    @cached_property
    def _downloads(self) -> "Downloads":
        # Imported late, as everything about files is: a seventh of the import, for those who save pictures alone.
        from piapi_async import files  # noqa: PLC0415

        return files.Downloads(
            transport=self._transport,
            repeat=partial(self._api.repeat, on=files.RETRY_DOWNLOAD, action="download"),
            announce=self._api.announce,
        )

    async def submit(
        self, request: Submittable, *, webhook: WebhookConfig | None = None, journal: Journal = NO_JOURNAL
    ) -> TaskHandle:
        """Submit a task, which costs money, and return your end of it.

        It is sent again only when the service certainly did not accept it. Cancelling this while the request is under
        way waits up to 10 s for the answer, so that the task is not lost unnoticed.

        It waits while as many tasks are in flight as may be (`max_in_flight`, or what was learned from refused
        submits). A task is in flight until a poll sees that it is over: tasks whose handles nobody awaits are polled
        meanwhile, so that many can be submitted first and awaited afterwards.

        Args:
            request: What is asked for: a typed request or a `TaskRequest`.

            webhook: Where the service is to report the task as well.

            journal: Told before the first byte is sent, and when the task's id is known; `Batch` keeps its ledger so.

        Raises:
            SubmissionInDoubtError: The answer was lost: the task may exist, and may be billed.
            SpendLimitError: It may cost more than `max_spend_usd` leaves; nothing was sent.
            ConfigurationError: A local picture needs Pillow, and that is missing.
            InsufficientCreditsError: The balance does not cover it.
            APIError: The service refuses it for another reason.
            ConnectError: The service could not be reached, after all retries; nothing was sent.
            OSError: A local picture cannot be read.
            TypeError: This is no request, or its input holds something that is neither JSON nor a picture.
            ValueError: A local picture is too large or no picture.
        """
        _session_options.submit(request, webhook=webhook)
        secret = "" if webhook is None else webhook.secret
        # The slot is the task's from its acceptance on, until a poll of anybody's sees that it is over.
        async with self._api.slot() as slot:
            with self._api.budget.reserve(request) as money:  # before its pictures are uploaded
                async with self._transport.in_memory(large=sources.is_heavy(request.input)):
                    try:
                        body = await sources.encode_submit(
                            request, webhook=webhook, rules=self._rules, upload=self._linked
                        )
                    except BaseException:
                        del request  # the error's traceback keeps this frame
                        raise
                    one = Submission(request=request, secret=secret, reservation=money, journal=journal, slot=slot)
                    try:
                        with self._own_tasks.submitting(request):
                            info = await self._api.create(body, submission=one)
                    finally:
                        body.release()
        return TaskHandle(info.task_id, api=self._api, polling=self._polling, info=info)

    async def run(
        self,
        request: Submittable,
        *,
        timeout: float | Unset | None = UNSET,
        webhook: WebhookConfig | None = None,
        journal: Journal = NO_JOURNAL,
    ) -> TaskInfo:
        """Submit a task and wait until it is over. A thousand of these in one `asyncio.gather` is fine.

        Args:
            request: What is asked for.

            timeout: Seconds for the wait, counted from the acceptance; as for `TaskHandle.wait`.

            webhook: As for `submit`.

            journal: As for `submit`.

        Returns:
            The completed task.

        Raises:
            PiAPIError: As for `submit` and `TaskHandle.wait`.
            ValueError: `timeout` is negative, or a local picture as for `submit`.
        """
        wait_limit(timeout, polling=self._polling)  # refused before the task is paid for
        try:
            handle = await self.submit(request, webhook=webhook, journal=journal)
        finally:
            del request  # neither the wait nor the traceback of an error needs its pictures
        return await handle.wait(timeout=timeout)

    def task(self, task_id: str) -> TaskHandle:
        """Your end of a task that was submitted before, here or elsewhere. Sends nothing.

        Raises:
            TypeError: This is something else than an id, such as a handle.
            ValueError: This cannot be a task's id.
        """
        return TaskHandle(_session_options.task_id(task_id), api=self._api, polling=self._polling)

    async def get_task(self, task_id: str) -> TaskInfo:
        """Poll a task once; a failed task is returned like any other.

        Raises:
            NotFoundError: The service does not know it.
            PiAPIError: The poll failed, also when repeated by the retry policy.
            TypeError: This is something else than an id, such as a handle.
            ValueError: This cannot be a task's id.
        """
        return await self._api.get(_session_options.task_id(task_id))

    async def cancel_task(self, task_id: str) -> TaskInfo:
        """Ask the service to cancel a task, then poll it; see `TaskHandle.cancel`.

        Raises:
            PiAPIError: The service refuses, or cannot be reached.
            TypeError: This is something else than an id, such as a handle.
            ValueError: This cannot be a task's id.
        """
        return await self._api.cancel(_session_options.task_id(task_id))

    async def account(self) -> Account:
        """Plan, balance and how many tasks the account may have in flight. This is free.

        Raises:
            PiAPIError: The service refuses, or cannot be reached.
        """
        return await self._api.account()

    async def upload(self, source: ImageSource, *, filename: str | None = None) -> str:
        """Put a local file where the service can fetch it, and return its link, which lives for 24 h.

        This is free, but needs the Creator plan or higher. This session uploads the same content again only after 23 h;
        a picture is made fit as for `submit`. With `local_images="upload"` all of this happens by itself.

        Args:
            source: A local picture in any form, a data URI included; or a `Path` or bytes of another file that the
                upload takes, for which `filename` ends in mp4, wav or mp3.

            filename: The name to upload it under, of at most 128 characters; by default one that tells its kind alone.

        Returns:
            The link.

        Raises:
            AuthenticationError: The plan does not allow it, or the key is wrong.
            ConfigurationError: It needs Pillow, and that is missing.
            OSError: It cannot be read.
            PiAPIError: The service refuses it for another reason, or could not be reached after all retries.
            TypeError: This is no source of a picture.
            ValueError: It is a link already, too large (10 MiB), or no picture; or the name is not allowed.
        """
        async with self._transport.in_memory(large=True):
            try:
                return await self._uploads.put(source, filename=filename)
            finally:
                del source  # the traceback of an error keeps this frame

    async def history(self, *, start: float, end: float, model: str | None = "flux") -> AsyncIterator[str]:
        """The ids of the account's past tasks, each once; the arguments and errors are those of `past_tasks`."""
        async for info in self._api.history(model=model, start=start, end=end):
            yield info.task_id

    def past_tasks(self, *, start: float, end: float, model: str | None = "flux") -> AsyncIterator[TaskInfo]:
        """The account's past tasks as its history tells them, each once, newest first. This is free.

        A record has the task's id, status, model, kind, time of creation, what it cost (`info.usage`, or `None` where
        the service does not say) and its output, so that `save(info, ...)` fetches it while the pictures live. It has
        no prompt and no source picture; `get_task(info.task_id)` shows those. `info.raw` is the record itself. How soon
        a task appears there, and whether one that is not over does, is not documented
        (https://piapi.ai/docs/piapi-user-history-query).

        Args:
            start: When they were created, at the earliest: seconds since 1970 (UTC), by the service's clock.

            end: The same, at the latest.

            model: The family of models, `None` for all.

        Raises:
            PiAPIError: The service refuses, or cannot be reached.
        """
        return self._api.history(model=model, start=start, end=end)

    async def find(
        self,
        request: Submittable,
        *,
        since: float,
        within: float = _candidates.LISTED_WITHIN,
        timeout: float | None = None,
        webhook: WebhookConfig | None = None,
        known: Collection[str] = (),
    ) -> TaskHandle | None:
        """Look for the task of a submit that ended in doubt, so that it need not be paid for twice. This is free.

            try:
                info = await session.run(request)
            except SubmissionInDoubtError as doubt:
                handle = await session.find(request, since=doubt.since)
                info = None if handle is None else await handle  # None: submitting it again may pay twice

        The account's history lists the tasks that were made within 5 minutes of `since`; each that is not known to be
        of another submit is polled, and compared with the request: model, kind of task, prompt, and all other fields
        that were set and that the service shows. Local pictures are compared by their bytes as they are sent; a picture
        that the service shows as a link cannot be compared.

        The history lags, and PiAPI does not say how far: the one task that is listed right after a submit may be
        another's, and yours still to come. So this waits until `within` seconds after `since`, and reads it then.

        What can go wrong: an equal task that somebody else on the account submitted at the same time is taken for
        yours, if yours does not exist; a clock that is more than 5 minutes wrong hides the task.

        Args:
            request: What was submitted: `doubt.request`. Files that it names must still be what they were.

            since: When it was submitted, seconds since 1970 (UTC): `doubt.since`.

            within: Seconds after `since` for which the task may be missing from the history; 120 by default.

            timeout: Seconds that may be spent waiting for that moment; 0 does not wait, `None` waits as long as it
                takes.

            webhook: What was submitted with it. A task that shows another URL is not it, and one that shows this URL
                goes before those that show none: with a URL of its own (a token in its query) it is known for certain.

            known: Ids of tasks that you know to be of other submits, such as those of other processes. The last 10,000
                tasks that this session submitted, or found, are known.

        Returns:
            The task, to be awaited; or `None` when none that fits was listed, which does not prove that there is none.

        Raises:
            SubmissionInDoubtError: It is too early to tell, and `timeout` is shorter than what is missing; the message
                says how long. Or several tasks fit, or one that may be of another submit of this session, under way or
                in doubt: their ids are in `candidates`. Equal requests are interchangeable:
                with as many of them in doubt as there are candidates, each of these is yours.
            PiAPIError: The history, or a task in it, cannot be read.
            OSError, ValueError: A local picture of the request cannot be read any longer; or a number is out of range.
            TypeError: An argument has the wrong type.
        """
        _session_options.submit(request, webhook=webhook)
        since = _validators.seconds("since", since, above=0)
        within = _validators.seconds("within", within, at_least=0)
        if timeout is not None:
            timeout = _validators.seconds("timeout", timeout, at_least=0, other=NO_LIMIT)
        if isinstance(known, str):
            raise _validators.refuse(TypeError, name="known", allowed="a collection of task ids", value=known)
        missing = since + within - self._api.clock.now()
        if timeout is not None and missing > timeout:
            raise self._still_in_doubt(
                f"it is too early to tell, as the history lags; ask again in {missing:.0f} s", request, since=since
            )
        await self._api.clock.sleep(max(0.0, missing))
        content = await content_of(request)
        found = await self._fitting(request, content, since=since, webhook=webhook, known=known)
        fitting = tuple(found)
        if len(fitting) > 1:
            raise self._still_in_doubt(
                f"{len(fitting)} tasks fit: {', '.join(fitting[:20])}; compare them, or pass those of others as known=",
                request,
                since=since,
                candidates=fitting,
            )
        if not fitting:
            return None
        if found[fitting[0]]:
            raise self._still_in_doubt(
                f"task {fitting[0]} fits, but may be of another submit of this session",
                request,
                since=since,
                candidates=fitting,
            )
        await self._own_tasks.adopt(fitting[0], content, since=since)  # no other submit's any longer
        return self.task(fitting[0])

    async def found(self, task_id: str, content: Content, *, since: float) -> None:
        """For `Batch`: a submit in doubt is so no longer, as its task was found. Sends nothing.

        Args:
            task_id: The task.

            content: The content of its request.

            since: When it was submitted, as for `find`.
        """
        await self._own_tasks.adopt(task_id, content, since=since)

    async def _fitting(
        self,
        request: Submittable,
        content: Content,
        *,
        since: float,
        webhook: WebhookConfig | None,
        known: Collection[str],
    ) -> dict[str, bool]:
        """The tasks that may be a submit's, by what they show, and whether each may be another submit's as well."""
        is_heavy = sources.is_heavy(request.input)
        async with self._transport.in_memory(large=is_heavy):
            # As they would be sent now: the service shows a picture so, scaled or turned upright.
            body = await sources.encode_submit(request, webhook=None, rules=self._rules, upload=None)
            sent = await sources.off_loop(lambda: body.digests) if is_heavy else ()

        async def unknown(task_ids: list[str]) -> list[str]:
            return [task_id for task_id in task_ids if task_id not in self._own_tasks and task_id not in known]

        candidates = _candidates.Candidates(history=self.history, read=self.get_task)
        infos = await candidates.between(since, since, models=[content.model], unknown=unknown)
        fitting = [info for info in infos if _candidates.is_near(info, since=since) and content.fits(info, sent=sent)]
        if webhook is not None:
            shown = [info for info in fitting if _candidates.endpoint(info) == webhook.endpoint]
            fitting = shown or [info for info in fitting if not _candidates.endpoint(info)]
        shared = {info.task_id: await self._own_tasks.may_be_of_another(info, content) for info in fitting}
        # An equal submit may have been answered, or its task found, while the candidates were read.
        return {task_id: shared[task_id] for task_id in await unknown(list(shared))}

    def _still_in_doubt(
        self, why: str, request: Submittable, *, since: float, candidates: tuple[str, ...] = ()
    ) -> errors.SubmissionInDoubtError:
        doubt = errors.SubmissionInDoubtError(
            f"a {request.model} {request.task_type} task may exist and may be billed ({why})",
            request=request,
            since=since,
        )
        doubt.candidates = candidates
        return doubt

    @property
    def prices(self) -> PriceList:
        """What tasks are expected to cost."""
        return self._api.budget.prices

    @property
    def clock_offset(self) -> float:
        """Seconds by which the service's clock is ahead of this machine's, by the `Date` of its answers; 0 at first."""
        return self._api.clock.offset

    @property
    def spent(self) -> float:
        """What the tasks submitted here cost, in US dollars.

        Tasks seen to be over count by what was charged, others by what they are expected to cost, if there is a price.
        """
        return self._api.budget.points / POINTS_PER_USD

    async def download(self, image: Image | str, to: str | Path, *, overwrite: bool = False) -> Path:
        """Bring one finished picture to disk, whole or not at all. The API key is not sent along.

        Args:
            image: The picture, or its URL.

            to: The file to write, named as given; or a directory (one that exists, or a text ending in a slash), in
                which the URL names the file and the content its ending.

            overwrite: Whether an existing file may be replaced.

        Returns:
            The file written.

        Raises:
            FileExistsError: The file exists and may not be replaced.
            OSError: The disk refuses.
            OutputError: What came is no picture, broken, too large, or gone: results live three days.
            TransportError: The result host could not be reached, or broke off, after all retries.
            TypeError: `image` is neither a picture nor a text, or `to` is not a path.
        """
        from piapi_async import files  # noqa: PLC0415 - see `_downloads`

        image, path = files.image_of(image, name="image"), _validators.path(to, name="to")
        into = files.is_directory(to)
        path = path / files.name_of(image) if into else path
        return (await self._downloads.to_file(image, path, overwrite=overwrite, suffix=into)).path

    async def fetch(self, image: Image | str) -> "Picture":
        """Bring one finished picture into memory, whole. The API key is not sent along.

        Args:
            image: The picture, or its URL.

        Raises:
            OutputError, TransportError, TypeError: As for `download`.
        """
        from piapi_async import files  # noqa: PLC0415 - see `_downloads`

        return await self._downloads.to_memory(files.image_of(image, name="image"))

    async def save(
        self,
        info: TaskInfo,
        directory: str | Path,
        *,
        name: str | None = None,
        sidecar: bool = False,
        request: Submittable | None = None,
    ) -> tuple[Path, ...]:
        """Bring all pictures of a completed task to disk, all at once, by default named by the task's id.

        Files are whole or not there, and one that fails does not keep the others. Saving again replaces them, unless
        `name` is without `{task_id}`: a file that is there may then be another task's.

        Args:
            info: The task.

            directory: Where to; made if missing.

            name: How to name the pictures: a text with `{task_id}`, `{model}`, `{task_type}`, `{n}` (the picture's
                number, from 1), `{date}` and `{time}` (when the task was made, UTC, as `2026-11-24` and `142530`), each
                with a format if need be (`{n:03}`). A `/` makes a folder. The content gives the ending. Pictures that
                would have the same name are numbered: `-1`, `-2`…

            sidecar: Whether to write a JSON file beside them: the task, its times and cost, the pictures with their
                digests, and what was asked. Its name is that of an only picture, with the ending `.json`.

            request: What was asked, for the side-car; without it the service's echo stands there, as an echo.

        Returns:
            The pictures' files, in the order of `info.images`.

        Raises:
            NoOutputError: The task has no pictures.
            TypeError: `info` is not a task's, but its handle, say, or one of its pictures, or `directory` is not a
                path; nothing was fetched.
            FileExistsError: A file is there, and `name` is without `{task_id}`.
            NotADirectoryError: `directory` is a file, or in one; nothing was fetched.
            ValueError: `name` names something else, or leads out of the directory; nothing was fetched.
            OSError, OutputError, TransportError: As for `download`, for the first picture that failed; a note, and
                the `saved` of those that are a `PiAPIError`, tell what was saved all the same.
        """
        from piapi_async.files._naming import naming as parse_name  # noqa: PLC0415 - see `_downloads`

        if not isinstance(info, TaskInfo):
            allowed = "a TaskInfo, such as `await handle` gives; session.download(image, to) is for one picture"
            raise _validators.refuse(TypeError, name="info", allowed=allowed, value=info)
        into, naming = _validators.path(directory, name="directory"), parse_name(name)
        if request is not None:
            _session_options.submit(request, webhook=None)
        if not info.images:
            raise errors.NoOutputError(f"task {info.task_id} is {info.status} and has no pictures", info=info)
        return await self._downloads.of_task(info, into, naming=naming, sidecar=sidecar, request=request)

    async def aclose(self) -> None:
        """Close the connections of this event loop; a second call does nothing. Tasks in flight continue.

        A submit under way is waited for, as after a cancel: for 10 s at most. Its task, as any that is still waited
        for, is named by an event and in the log, and cancelled with `on_cancel="cancel"`; those who wait get a
        `ConfigurationError` that names the task. A submit that has not begun to be sent is not sent.
        """
        try:
            await self._api.settle()
        finally:
            await self._transport.aclose()

    async def __aenter__(self) -> Self:
        self._entered += 1
        self._transport.reopen()
        self._api.under_way.reopen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # One session may serve many `async with` blocks at once, each of a web request, say: the last one closes it.
        self._entered -= 1
        if self._entered == 0:
            try:
                await self._api.settle()
            finally:
                if self._entered == 0:  # nobody came while that took its time, and is in the middle of a submit
                    await self._transport.aclose()

    def __del__(self) -> None:
        transport = getattr(self, "_transport", None)
        if transport is not None and transport.is_open:
            warnings.warn(f"{self!r} was not closed; use 'async with' or 'await session.aclose()'", ResourceWarning, 2)

    def __repr__(self) -> str:
        return f"<Session {self._api.base_url}>"
