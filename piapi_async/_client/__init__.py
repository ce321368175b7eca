"""The client of PiAPI's HTTP interface, and how the package works: read this page first.

**A submit** is the one call that costs money. `await session.run(request)` reaches the network through these functions;
tenacity's loop runs between `Api.create` and its attempts, and aiohttp follows on `Transport.send`:

    Session.run
      Session.submit                  1 a slot among the tasks in flight, 2 the money, 3 the pictures into the body
        Api.create: an attempt        4 the permit to send one request; retried as the table below says
          Api._post                   5 the hooks' `sending`, the POST, the hooks' `accepted`, `refused` or `lost`
            Transport.send              in an asyncio task of its own, so that a cancel cannot cut off a POST

1. The *slot* (`limits/_slots.py`) belongs to the task until some poll sees that it is over.
2. The price is reserved (`_client/budget.py`) before anything is read or uploaded.
3. Local pictures become links or base64 (`_images/`), streamed into the body (`_client/body.py`).
4. The *permit* (`limits/_queue.py`) is the queue for all requests of an account: rate, the pause after a 429,
   priorities.
5. `sending` returns when the ledger has flushed the job to disk. Only then does the first byte go out, and the task's
   ID is the very next thing that is written.

**The verdict** on an attempt that brought no task is made in one place, `Verdict.of`: *not sent* (the last byte of
the body was not handed over, so there is no task), *refused* (the answer says that there is none) or *in doubt*
(there may be one). What is in doubt is never sent again; it is reported as `SubmissionInDoubtError`, and can be
settled by `Session.find` or by `Batch(on_doubt="reconcile")`. `errors.py` and `responses.py` decide what an answer
means, `retry.py` what may be repeated.

**A poll** is free. `TaskHandle.wait` runs in the caller's asyncio task:

    TaskHandle.wait                   holds a `Waiting` (`closing.py`), which closing the session ends
      a Poller's attempt              `polling/_poller.py`: tenacity's loop, with the pauses of `Polling.wait`
        Api.poll                      the permit to send one request, by priority
          Transport.send

A failed poll is never a failed task: the wait ends when the task is over, when its time is up, or when PiAPI itself
refuses to show the task again and again.

**What ends early.** Whoever cancels a submit, or leaves the session, waits up to 10 s for the POST's answer
(`closing.py`). A cancelled wait leaves its task alone, or cancels it at the service, by `Session(on_cancel=)`.

**The ledger** (`ledger/_states.py` has the table of states) is one more implementation of the hooks: `Batch` resumes
from it.

**Where things are.** `requests.py` and `responses.py`: the protocol as values, without I/O. `transport.py`: the only
user of aiohttp's client besides downloads. `api.py`: the service's calls. `history.py`: the account's list of tasks.
`closing.py`: leaving in good order. A new task type is a class in `flux/`, with its price in `prices.py`.
"""
