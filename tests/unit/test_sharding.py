"""The history shared out between processes: the same steps, the same bits, whole on request."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

from pyptyx import trees
from pyptyx.optim.lbfgs import LBFGS, Point, gathered, shared_out
from pyptyx.optim.sharding import Shards


class Rank:
    """A communicator whose ranks are threads."""

    def __init__(self, rank, size, barrier, board):
        self.rank, self.size = rank, size
        self._barrier, self._board = barrier, board

    def gather(self, value):
        self._barrier.wait()
        self._board[self.rank] = value
        self._barrier.wait()
        return [self._board[r] for r in range(self.size)]

    def concatenate(self, part):
        return np.concatenate(self.gather(part))


def on_ranks(size, function):
    """What `function(communicator)` returns on every rank."""
    barrier, board = Barrier(size, timeout=20), {}
    ranks = [Rank(r, size, barrier, board) for r in range(size)]
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(function, ranks))


def tree(dtype, seed=0):
    """Two blocks and a half, a third of a block, eight numbers."""
    rng = np.random.default_rng(seed)

    def numbers(*shape):
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)

    return {
        "object": numbers(2, 71, 144),
        "probe": numbers(3, 16, 28),
        "positions": rng.normal(size=(4, 2)),
    }


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
def test_shares_cover_the_tree_and_dots_have_the_same_bits(size, dtype):
    u, v = tree(dtype), tree(dtype, seed=1)

    def rank(communicator):
        shards = Shards(communicator)
        p, q = shards.part(u), shards.part(v)
        numbers = sum(a.size for a in p.values())
        return shards.whole(p), numbers, shards.vdot_parts(p, q), shards.vdot(u, v)

    everything = sum(trees.real_view(a).size for a in u.values())
    results = on_ranks(size, rank)
    if size > 1:
        assert sum(numbers for _, numbers, _, _ in results) == everything
        assert results[0][1] < 0.7 * everything
    for whole, _, parts, direct in results:
        for name in u:
            np.testing.assert_array_equal(whole[name], u[name])
            assert whole[name].dtype == u[name].dtype
        assert parts == direct == trees.vdot(u, v)
    assert trees.vdot(u, v) == pytest.approx(sum(np.vdot(u[k], v[k]).real for k in u), rel=1e-5)


def quadratic(x):
    """A convex function with a different curvature for every number."""
    g = {k: (1 + np.arange(v.size).reshape(v.shape) % 7) * v for k, v in x.items()}
    return Point(x, 0.5 * trees.vdot(x, g), g)


def minimise(communicator, steps=6):
    optimizer = LBFGS(communicator=communicator)
    point, values = quadratic(tree(np.complex128)), []
    for _ in range(steps):
        point = optimizer.step(quadratic, point).point
        values.append(point.value)
    return optimizer, point, values


@pytest.mark.parametrize("size", [2, 3])
def test_sharing_changes_no_bit_of_the_iteration(size):
    _, expected, values = minimise(None)
    assert values[-1] < 1e-3 * values[0]
    for _, point, got in on_ranks(size, minimise):
        assert got == values
        for name in expected.x:
            np.testing.assert_array_equal(point.x[name], expected.x[name])


def test_a_rank_keeps_its_part_of_the_history():
    def kept(communicator):
        pairs = minimise(communicator)[0].state()["pairs"]
        return sum(a.nbytes for s, y, _ in pairs for a in (*s.values(), *y.values()))

    whole = kept(None)
    shares = on_ranks(4, kept)
    assert sum(shares) == whole
    assert max(shares) < 0.45 * whole


@pytest.mark.parametrize("size", [1, 3])
def test_a_gathered_state_goes_on_with_any_number_of_ranks(size):
    expected = minimise(None, steps=5)[2]

    def first_half(communicator):
        optimizer, point, _ = minimise(communicator, steps=3)
        return gathered(optimizer.state(), communicator), point

    state, point = on_ranks(2, first_half)[1]
    assert state["pairs"][0][0]["object"].shape == point.x["object"].shape

    def second_half(communicator):
        optimizer = LBFGS(communicator=communicator)
        optimizer.restore(shared_out(state, communicator))
        here, values = point, []
        for _ in range(2):
            here = optimizer.step(quadratic, here).point
            values.append(here.value)
        return values

    assert all(values == expected[3:] for values in on_ranks(size, second_half))


def test_a_process_alone_copies_nothing():
    u = tree(np.complex64)
    shards = Shards()
    assert all(shards.part(u)[k] is u[k] for k in u)
    assert "layout" not in LBFGS().state()
