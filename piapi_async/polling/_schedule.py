"""When to poll, as mathematics: how long tasks take, estimated from few of them, and the polls that cost least.

A poll costs 1, and each second between a task's end and the poll that shows it costs `price`. For a known distribution
of durations the times that minimise the sum on average are the optimum checking procedure of Barlow, Hunter and
Proschan (Journal of the SIAM 11, 1963; Keller 1974 gives the smooth approximation: polls stand as dense as the square
root of `price * hazard / 2`). Here they are found by dynamic programming, backwards over a grid of times.

The distribution is a mixture of bells on a logarithmic scale: one for each sample, as wide as the distance to its
nearest neighbours (Breiman, Meisel and Purcell 1977); one around all of them, whose spread is shrunk towards a usual
one; and a broad one, since what was not seen so far may come all the same. The weights of the last two fade as samples
come in.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import accumulate, pairwise
from typing import Final

import attrs

SHORTEST: Final = 0.05
"""Seconds between two polls at least."""

LONG: Final = 60.0
LONGEST: Final = 600.0
"""Seconds between two polls at most: the first, or as many as the task is old, but never more than the second. What
was learned may have ceased to hold, and a poll that is planned too late is the only one that could show it."""

SPREAD_COST: Final = 0.03
SPREAD_MOST: Final = 0.15
"""Polls are spread to where they cost so much of a poll more, but by no more than such a part of the pause."""

BELLS: Final = 64
POINTS: Final = 512
GRID: Final = 96
MASS: Final = 0.15
"""More samples than `BELLS` are taken together in groups; all bells are drawn with about `POINTS` points, of which a
grid of `GRID` times is made, by how dense polls will be and, with the weight `MASS`, by how many tasks end."""

RESOLUTION: Final = 0.004
"""The narrowest bell, relative to a duration."""

NEIGHBOURS: Final = 0.5
"""A bell's width by the distance to the neighbour that is the square root of their number away."""

USUAL_SPREAD: Final = 0.35
SPREAD_WEIGHT: Final = 2.0
"""The standard deviation of the logarithm that is assumed before anything is known, and for how many samples it
counts."""

SMOOTH_WEIGHT: Final = 1.0
BROAD_WEIGHT: Final = 0.5
BROAD_SHIFT: Final = 0.3
BROAD_SPREAD: Final = 0.9
"""For how many samples the bell around all and the broad one count; how much later that one lies, and its width."""

_TAIL = [1.3**step for step in range(9)]
_RARE, _MANY = 1e-5, 0.05


@attrs.frozen
class Curve:
    """A distribution of durations: at each of some rising times, the share of tasks that are over by then."""

    times: list[float]
    over: list[float]

    def share(self, seconds: float) -> float:
        """The share of tasks that are over after so many seconds, below 1."""
        if seconds >= self.times[-1]:
            return 1 - (1 - self.over[-1]) * self.times[-1] / seconds
        return _between(self.times, self.over, seconds)

    def lateness(self, least: float, most: float) -> float:
        """How long ago the end of a task is to be expected that was over after `most` seconds, but not after `least`.

        At most all of the time between them; 0 when there is none.
        """
        last = self.times[-1]
        ended = self.share(most) - self.share(least)
        if least < last > most and ended > _RARE:
            early, late = self.areas((least, most))
            expected = (late - early - self.share(least) * (most - least)) / ended
            return min(max(expected, 0.0), most - least)
        return max(0.0, most - least) / 2

    def areas(self, seconds: Iterable[float]) -> list[float]:
        """The area under the curve up to each of some times that are on it."""
        whole = _areas(self)
        found = []
        for second in seconds:
            at = bisect_right(self.times, second) - 1
            found.append(whole[at] + (second - self.times[at]) * (self.over[at] + self.share(second)) / 2)
        return found


def _slopes_of(plan: "Plan") -> list[float]:
    steps = zip(pairwise(plan.times), pairwise(plan.costs), strict=True)
    slopes = [(high - low) / (end - begin) for (begin, end), (low, high) in steps]
    return [*slopes, plan.price]  # beyond the grid each second is one of lateness


@attrs.frozen
class Plan:
    """The best polls: for a task that is not over at `times[i]`, the next is at `polls[i]`, give or take `rooms[i]`.

    `costs` holds, for each time, what polling on costs, times the share of tasks that are not over, plus the price of
    the lateness that the others had by then if nobody had looked: the form in which the sums are short.
    """

    times: list[float]
    polls: list[float]
    rooms: list[float]
    costs: list[float]
    price: float
    _slopes: list[float] = attrs.field(init=False, repr=False, default=attrs.Factory(_slopes_of, takes_self=True))

    def pause(self, elapsed: float) -> float:
        """Seconds until the next poll of a task that is not over after `elapsed`."""
        beyond = elapsed >= self.times[-1]
        pause = sparse(elapsed, price=self.price) if beyond else self._poll(elapsed) - elapsed
        return min(max(pause, SHORTEST), max(LONG, elapsed), LONGEST)

    def spread(self, elapsed: float, *, chance: float) -> float:
        """The same, moved by chance (0 to 1; a half is the middle), so that tasks are not all polled at once."""
        pause = self.pause(elapsed)
        room = self.rooms[bisect_right(self.times, elapsed) - 1]
        return pause + (2 * chance - 1) * min(room, SPREAD_MOST * pause)

    def costs_at(self, seconds: Iterable[float]) -> list[float]:
        """What is in `costs`, at any times."""
        times, costs = self.times, self.costs
        found = []
        for second in seconds:
            at = bisect_right(times, second) - 1
            found.append(costs[at] + self._slopes[at] * (second - times[at]))
        return found

    def _poll(self, elapsed: float) -> float:
        at = bisect_right(self.times, elapsed) - 1
        (begin, end), (early, late) = self.times[at : at + 2], self.polls[at : at + 2]
        part = (elapsed - begin) / (end - begin)
        if late - early <= 3 * (end - begin):
            return early + part * (late - early)
        return late if 2 * part > 1 else early  # the polls leap over a gap: either side is right, the middle is not


def sparse(elapsed: float, *, price: float) -> float:
    """The pause far beyond all that was seen, where the chance of an end falls as 1 / elapsed."""
    return math.sqrt(2 * elapsed / price)


def _between(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """Linear interpolation for `xs[0] <= x < xs[-1]`."""
    at = bisect_right(xs, x)
    left = xs[at - 1]
    return ys[at - 1] + (ys[at] - ys[at - 1]) * (x - left) / (xs[at] - left)


def estimate(seconds: Sequence[float]) -> Curve:
    """The distribution behind some durations, at least one of them, each above 0."""
    return _curve(sorted(_drawn(sorted(map(math.log, seconds)))))


def _drawn(logs: list[float]) -> Iterator[tuple[float, float]]:
    """The mixture as points of time, each with its weight."""
    count = len(logs)
    middle, spread = _around(logs)
    total = count + SMOOTH_WEIGHT + BROAD_WEIGHT
    each = max(8, min(32, POINTS // count))
    for centre, width, weight in _grouped(logs, widths=_widths(logs, most=spread)):
        yield from _bell(centre, width=width, weight=weight / total, points=each)
    yield from _bell(middle, width=spread, weight=SMOOTH_WEIGHT / total, points=32)
    broad = max(BROAD_SPREAD, 1.5 * spread)
    yield from _bell(middle + BROAD_SHIFT, width=broad, weight=BROAD_WEIGHT / total, points=32)


def _around(logs: list[float]) -> tuple[float, float]:
    """Middle and width of the bell around all samples, with what is usual counted in."""
    count = len(logs)
    middle = math.fsum(logs) / count
    squares = math.fsum((log - middle) ** 2 for log in logs)
    variance = (SPREAD_WEIGHT * USUAL_SPREAD**2 + squares) / (SPREAD_WEIGHT + count - 1)
    return middle, math.sqrt(variance * (1 + 1 / count))


def _widths(logs: list[float], *, most: float) -> list[float]:
    """How wide each sample's bell is."""
    count = len(logs)
    if count == 1:
        return [most]
    near = round(math.sqrt(count))
    found = []
    first = 0
    for at, log in enumerate(logs):
        # The nearest neighbours of a sample are a run of samples around it, which moves on with it.
        while first + near < at or (first + near + 1 < count and logs[first + near + 1] - log < log - logs[first]):
            first += 1
        reach = max(log - logs[first], logs[min(first + near, count - 1)] - log)
        found.append(min(max(NEIGHBOURS * reach, RESOLUTION), most))
    return found


def _grouped(logs: list[float], *, widths: list[float]) -> Iterator[tuple[float, float, int]]:
    """Centre, width and number of samples of each bell; neighbours share one when there are many."""
    count = len(logs)
    groups = min(count, BELLS)
    for number in range(groups):
        begin, end = number * count // groups, (number + 1) * count // groups
        size = end - begin
        width = max(sum(widths[begin:end]) / size, (logs[end - 1] - logs[begin]) / 3.5)
        yield sum(logs[begin:end]) / size, width, size


@cache
def _steps(points: int) -> tuple[float, ...]:
    """Quantiles of a logistic distribution that is about as wide as the standard normal one, but has longer tails."""
    return tuple(math.log((step + 0.5) / (points - step - 0.5)) / 1.7 for step in range(points))


def _bell(centre: float, *, width: float, weight: float, points: int) -> Iterator[tuple[float, float]]:
    share = weight / points
    for step in _steps(points):
        yield math.exp(centre + width * step), share


def _curve(points: list[tuple[float, float]]) -> Curve:
    """Weighted points as a curve, on a grid that is fine where many polls will be."""
    times = [0.0, *(time for time, _ in points)]
    below = [0.0, *accumulate(weight for _, weight in points)]
    over = [0.0, *((low + high) / 2 for low, high in pairwise(below))]
    measure = _measure(times, over)
    grid = [(0.0, 0.0)]
    for number in range(1, GRID):
        place = measure[-1] * number / GRID
        time = _between(measure, times, place)
        if time > grid[-1][0]:  # durations may be all the same
            grid.append((time, _between(measure, over, place)))
    grid += [(times[-1] * factor, 1 - (1 - over[-1]) / factor) for factor in _TAIL]
    return Curve([time for time, _ in grid], [share for _, share in grid])


def _measure(times: list[float], over: list[float]) -> list[float]:
    """How much of the grid is before each time: most of it by how dense polls will be, some by how many tasks end."""
    cells = zip(pairwise(times), pairwise(over), strict=True)
    dense = [0.0, *accumulate(math.sqrt((end - begin) * (high - low)) for (begin, end), (low, high) in cells)]
    return [part / dense[-1] + MASS * share for part, share in zip(dense, over, strict=True)]


def plan(curve: Curve, *, price: float) -> Plan:
    """The best polls of tasks of which no more is known than whether they are over."""
    times, over = curve.times, curve.over
    last = len(times) - 1
    costs = [0.0] * last + [
        (1 - over[last]) * (2 + sparse(price * times[last], price=1.0)) + price * _areas(curve)[last]
    ]
    polls = [0.0] * last + [times[last] + sparse(times[last], price=price)]
    rooms = [0.0] * last + [math.inf]
    best = last
    for at in range(last - 1, -1, -1):
        slope = price * over[at]

        def cost(to: int, slope: float = slope) -> float:
            return costs[to] - slope * times[to]

        # The more tasks are over, the later the best poll: none is later than that of the time after this one.
        best = min(range(at + 1, max(best, at + 1) + 1), key=cost)
        within = range(at + 1, last + 1)
        polls[at] = _refined(times, within, best, cost=cost)
        rooms[at] = _room(times, within, best, cost=cost, more=SPREAD_COST * (1 - over[at]))
        costs[at] = 1 - over[at] + cost(best) + slope * times[at]
    return Plan(times, polls, rooms, costs, price)


def _areas(curve: Curve) -> list[float]:
    """The area under a curve up to each of its times: the lateness that tasks have had by then if nobody polled."""
    cells = zip(pairwise(curve.times), pairwise(curve.over), strict=True)
    return [0.0, *accumulate((end - begin) * (low + high) / 2 for (begin, end), (low, high) in cells)]


def _refined(times: list[float], within: range, best: int, *, cost: Callable[[int], float]) -> float:
    """The lowest point between grid points: where the line through the slopes beside the best one crosses zero."""
    if best - 1 not in within or best + 1 not in within:
        return times[best]
    before, here, after = times[best - 1 : best + 2]
    fall, rise = (cost(best) - cost(best - 1)) / (here - before), (cost(best + 1) - cost(best)) / (after - here)
    share = -fall / (rise - fall) if rise > fall else 0.5
    return (before + here) / 2 + share * (after - before) / 2


def _room(times: list[float], within: range, best: int, *, cost: Callable[[int], float], more: float) -> float:
    """How far from the best time the cost is about so much higher, taking it to grow with the square."""
    limit, found = cost(best) + more, math.inf
    for side in (range(best - 1, within.start - 1, -1), range(best + 1, within.stop)):
        beyond = next((to for to in side if cost(to) > limit), None)
        if beyond is not None:
            part = math.sqrt(more / (cost(beyond) - limit + more))
            found = min(found, part * abs(times[beyond] - times[best]))
    return found


def _thinned(curve: Curve) -> Iterator[float]:
    """Every third of a curve's times, and those by which many tasks more are over."""
    last = 0.0
    for at, (time, share) in enumerate(zip(curve.times, curve.over, strict=True)):
        if at % 3 == 0 or share - last > _MANY:
            yield time
            last = share


def plan_queued(waits: Curve, *, totals: Curve, running: Plan) -> Plan:
    """The best polls of tasks that wait for a worker.

    A poll that finds such a task running also tells since when, and then the plan for running tasks goes on from there.
    The time in the queue and the time of the work are taken to be independent.

    Args:
        waits: How long tasks wait for a worker.

        totals: How long they take in all.

        running: The best polls of tasks that run, by the time they do so.
    """
    times = sorted({*_thinned(waits), *_thinned(totals)})
    begun, areas = [waits.share(time) for time in times], waits.areas(times)
    last = len(times) - 1
    costs = [0.0] * last + [(1 - begun[last]) * (2 + sparse(running.price * times[last], price=1.0))]
    polls = [0.0] * last + [times[last] + sparse(times[last], price=running.price)]
    rooms = [0.0] * last + [math.inf]
    found = [0.0] * (last + 1)  # by when the poll is: what tasks cost that left the queue before it

    def cost(to: int) -> float:
        return found[to] + costs[to]

    for at in range(last - 1, -1, -1):
        share = begun[at + 1] - begun[at]
        if share > _RARE:
            start = (begun[at + 1] * times[at + 1] - begun[at] * times[at] - (areas[at + 1] - areas[at])) / share
            costs_then = running.costs_at(max(0.0, time - start) for time in times[at + 1 :])
            found[at + 1 :] = [known + share * then for known, then in zip(found[at + 1 :], costs_then, strict=True)]
        within = range(at + 1, last + 1)
        best = min(within, key=cost)
        polls[at] = _refined(times, within, best, cost=cost)
        rooms[at] = _room(times, within, best, cost=cost, more=SPREAD_COST * (1 - begun[at]))
        costs[at] = 1 - begun[at] + cost(best)
    return Plan(times, polls, rooms, costs, running.price)
