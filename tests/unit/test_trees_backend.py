"""Algebra over trees, and the NumPy side of the one door to the device."""

import numpy as np
import pytest

from pyptyx import backend as backend_module
from pyptyx import trees
from pyptyx.backend import Backend, available_cores, make_backends
from pyptyx.errors import DeviceError

SHAPES = {"object": (3, 2, 5, 7), "probe": (4, 6), "positions": (8, 2), "background": (9,)}


def random_tree(seed, single=False):
    """Complex and real blocks of both precisions' dtypes."""
    rng = np.random.default_rng(seed)
    tree = {}
    for name, shape in SHAPES.items():
        a = rng.standard_normal(shape)
        if name in ("object", "probe"):
            a = a + 1j * rng.standard_normal(shape)
        if single and name != "positions":
            a = a.astype(np.complex64 if a.dtype.kind == "c" else np.float32)
        tree[name] = a
    return tree


@pytest.fixture(params=[False, True], ids=["double", "single"])
def pair(request):
    return random_tree(1, request.param), random_tree(2, request.param)


# -- algebra -----------------------------------------------------------------------------------


def test_vdot_is_the_real_part_of_the_complex_product(pair):
    u, v = pair
    expected = sum(
        float((u[k].conj().astype(complex) * v[k].astype(complex)).sum().real) for k in u
    )
    assert trees.vdot(u, v) == pytest.approx(expected, rel=1e-13)
    assert trees.norm(u) == pytest.approx(np.sqrt(trees.vdot(u, u)), rel=1e-15)
    assert type(trees.vdot(u, v)) is float


def test_vdot_uses_the_keys_of_its_first_argument(pair):
    u, v = pair
    some = {k: u[k] for k in ("probe", "background")}
    assert trees.vdot(some, v) == pytest.approx(
        trees.dot(u["probe"], v["probe"]) + trees.dot(u["background"], v["background"])
    )


def test_dot_is_accumulated_in_double():
    """Exact over several blocks and through cancellation, which single precision is not."""
    a = np.full(300_003, 1e-4, np.float32)
    assert trees.dot(a, a) == pytest.approx(a.size * float(np.float32(1e-4)) ** 2, rel=1e-12)
    big = np.array([1e4, 1e-4, -1e4], np.float32)
    assert trees.dot(big, np.ones(3, np.float32)) == pytest.approx(float(big[1]), rel=1e-9)


def test_dot_of_arrays_that_are_not_contiguous():
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal((5, 7)) + 1j * rng.standard_normal((5, 7)) for _ in range(2))
    assert trees.dot(a.T, b.T) == pytest.approx(trees.dot(a, b), rel=1e-13)
    assert trees.dot(a[:, ::2], b[:, ::2]) == pytest.approx(np.vdot(a[:, ::2], b[:, ::2]).real)


def test_real_view_of_a_contiguous_array_is_a_view():
    a = random_tree(1)["object"]
    view = trees.real_view(a)
    assert view.shape == (2 * a.size,)
    assert np.shares_memory(view, a)
    np.testing.assert_array_equal(view[:2], [a.flat[0].real, a.flat[0].imag])


def test_linear_operations(pair):
    x, y = pair
    for name in x:
        np.testing.assert_allclose(trees.axpy(2.5, x, y)[name], y[name] + 2.5 * x[name], rtol=1e-6)
        np.testing.assert_allclose(trees.scale(-0.5, x)[name], -0.5 * x[name])
        np.testing.assert_allclose(trees.sub(x, y)[name], x[name] - y[name])


def test_precision_and_arguments_are_kept(pair):
    x, y = pair
    before = trees.copy(x), trees.copy(y)
    for result in (
        trees.axpy(1 / 3, x, y),
        trees.scale(1 / 3, x),
        trees.sub(x, y),
        trees.zeros_like(x),
    ):
        for name in x:
            assert result[name].dtype == x[name].dtype, name
    for tree, copy in zip((x, y), before, strict=True):
        for name in tree:
            np.testing.assert_array_equal(tree[name], copy[name])


def test_the_keys_of_the_direction_decide():
    x, y = random_tree(1), random_tree(2)
    some = {"probe": x["probe"]}
    assert trees.axpy(1.0, some, y).keys() == trees.sub(some, y).keys() == {"probe"}
    assert trees.map_tree(lambda a, b: a - b, some, y).keys() == {"probe"}


@pytest.mark.parametrize("numbers", [[np.inf, 1.0], [1e300, 1e300], [np.nan, 1.0]])
def test_numbers_out_of_range_make_no_warning(numbers):
    a = np.resize(numbers, 20)
    assert not np.isfinite(trees.dot(a, a * np.resize([1, -1, 1], 20)))


@pytest.mark.parametrize("chunk", [7, 1 << 15])
@pytest.mark.parametrize("order", ["C", "F"])
def test_add_scaled_is_axpy_in_place(pair, order, chunk, monkeypatch):
    monkeypatch.setitem(trees._CHUNK, True, chunk)
    x, y = pair
    before = trees.copy(x)
    acc = {k: np.array(y[k], order=order) for k in ("object", "positions")}
    arrays = dict(acc)
    trees.add_scaled(acc, 1 / 3, x)
    expected = trees.axpy(1 / 3, {k: x[k] for k in acc}, y)
    for k, a in acc.items():
        assert a is arrays[k]
        np.testing.assert_array_equal(a, expected[k])
        np.testing.assert_array_equal(x[k], before[k])


def test_add_into_works_in_place_over_the_keys_of_the_accumulator():
    x, target = random_tree(1), random_tree(2)
    acc = {k: target[k].copy() for k in ("object", "positions")}
    arrays = dict(acc)
    trees.add_into(acc, x)
    assert acc.keys() == arrays.keys()
    for name, a in acc.items():
        assert a is arrays[name]
        np.testing.assert_allclose(a, target[name] + x[name])


def test_zeros_and_copies_are_new_arrays():
    x = random_tree(1)
    x["object"][0, 0, 0, 0] = np.nan
    for tree in (trees.zeros_like(x), trees.copy(x)):
        for name in x:
            assert tree[name].shape == x[name].shape
            assert not np.shares_memory(tree[name], x[name])
    assert not any(a.any() for a in trees.zeros_like(x).values())
    np.testing.assert_array_equal(trees.copy(x)["object"], x["object"])


def test_a_number_is_an_array_too():
    """Zero for NaN, and still an array that can be added into."""
    acc = trees.zeros_like({"a": np.array(np.nan)})
    trees.add_into(acc, {"a": np.array(2.0)})
    assert acc["a"] == 2.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_is_finite_names_the_block(bad):
    x = random_tree(1, single=True)
    assert all(trees.is_finite(x).values())
    x["probe"].imag[2, 3] = bad
    assert trees.is_finite(x) == {k: k != "probe" for k in x}


# -- backend -----------------------------------------------------------------------------------


@pytest.fixture(params=[np.complex64, np.complex128])
def stack(request):
    rng = np.random.default_rng(4)
    a = rng.standard_normal((3, 5, 8)) + 1j * rng.standard_normal((3, 5, 8))
    return a.astype(request.param)


def test_ffts_act_on_the_last_two_axes_and_keep_the_precision(stack):
    b = Backend()
    tolerance = 1e-4 if stack.dtype == np.complex64 else 1e-12
    for got, expected in (
        (b.fft2(stack), np.fft.fft2(stack)),
        (b.ifft2(stack), np.fft.ifft2(stack)),
        (b.fft2_adjoint(stack), 40 * np.fft.ifft2(stack)),
    ):
        assert got.dtype == stack.dtype
        np.testing.assert_allclose(got, expected, atol=tolerance)


def test_fft_adjoint_is_the_adjoint(stack):
    b = Backend()
    w = stack[::-1] * 1j
    left, right = trees.dot(w, b.fft2(stack)), trees.dot(b.fft2_adjoint(w), stack)
    assert left == pytest.approx(right, rel=1e-5)


def test_only_overwrite_may_change_the_argument(stack):
    b, before = Backend(), stack.copy()
    for transform in (b.fft2, b.ifft2, b.fft2_adjoint):
        transform(stack)
        np.testing.assert_array_equal(stack, before)
        np.testing.assert_array_equal(transform(before.copy(), overwrite=True), transform(stack))


def test_arrays_of_the_host_are_not_copied(stack):
    b = Backend()
    assert b.asarray(stack) is stack
    assert b.to_host(stack) is stack
    assert b.asarray([1, 2], np.float32).dtype == np.float32


def test_arrays_of_a_device_come_down_through_get(stack):
    class OnDevice:
        def get(self):
            return stack

    assert Backend().asarray(OnDevice()) is stack


def test_housekeeping():
    b = Backend()
    with b.context():
        b.synchronize()
    assert b.name == "cpu"
    assert b.xp is np
    assert b.free_bytes() > 0


def test_number_of_workers_on_the_cpu():
    assert [b.name for b in make_backends(3, prefer="cpu")] == ["cpu"] * 3
    assert len(make_backends("auto", prefer="cpu")) == available_cores() >= 1
    assert len({id(b) for b in make_backends(3, prefer="cpu")}) == 3


def test_devices_that_do_not_exist(monkeypatch):
    monkeypatch.setattr(backend_module, "cuda_device_count", lambda: 0)
    with pytest.raises(DeviceError, match=r"no GPU.*\[0, 7\].*'auto'"):
        make_backends([0, 7])
    assert [b.name for b in make_backends(2)] == ["cpu"] * 2
