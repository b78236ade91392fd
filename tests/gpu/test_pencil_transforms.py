"""Codelets and transforms of a line by a team of threads."""

import math

import numpy as np
import pytest

from pyptyx.physics.kernels.cuda.codelets import butterfly, is_smooth
from pyptyx.physics.kernels.cuda.source import cuda_text
from pyptyx.physics.kernels.cuda.transforms import (
    FEW_SLOTS,
    MAX_RADIX,
    MAX_THREADS,
    can_transform,
    codelets,
    plan,
)
from tests.gpu.emulator import host_library, launch, needs_compiler

SMOOTH = [n for n in range(2, 513) if is_smooth(n)]
SIZES = [16, 35, 64, 81, 96, 112, 125, 128, 180, 192, 224, 256, 300, 320, 343, 400, 448, 512]
LINES = 3

KERNEL = """
extern "C" __global__ void transform_{name}(const Complex* data, int backward) {{
    __shared__ Complex room[{lines} * padded({name}::SIZE)];
    const int r = {line}, t = {thread};
    Complex* values = (Complex*)data + r * {name}::SIZE;
    Complex v[{name}::SLOTS] = {{}};
    if (backward) {{
        visit<{name}, {name}::LAST>(t, [&](int s, int i) {{ v[s] = values[i]; }});
        {name}::inverse(v, room + {start}, t);
        visit<{name}, {name}::FIRST>(t, [&](int s, int i) {{ values[i] = v[s]; }});
    }} else {{
        visit<{name}, {name}::FIRST>(t, [&](int s, int i) {{ v[s] = values[i]; }});
        {name}::forward(v, room + {start}, t);
        visit<{name}, {name}::LAST>(t, [&](int s, int i) {{ values[i] = v[s]; }});
    }}
}}
"""


def cases():
    for n in SIZES:
        yield f"Row{n}", plan(n), 1
        yield f"Column{n}", plan(n), LINES
        if can_transform(n):
            yield f"Few{n}", plan(n, FEW_SLOTS), 1


CASES = {name: (transform, step) for name, transform, step in cases()}


@pytest.fixture(scope="module")
def library():
    """All transforms in one library, along rows and along columns."""
    parts = [cuda_text("transform.cu"), codelets(*(t for t, _ in CASES.values()))]
    for name, (transform, step) in CASES.items():
        parts.append(transform.source(name, step))
        row = step == 1
        parts.append(
            KERNEL.format(
                name=name,
                lines=LINES,
                line=f"threadIdx.x {'/' if row else '%'} {transform.threads if row else LINES}",
                thread=f"threadIdx.x {'%' if row else '/'} {transform.threads if row else LINES}",
                start=f"r * padded({transform.size})" if row else "r",
            )
        )
    return host_library("\n".join(parts))


@needs_compiler
@pytest.mark.parametrize("name", CASES)
def test_transform(name, library):
    transform, _ = CASES[name]
    rng = np.random.default_rng(transform.size)
    values = rng.normal(size=(LINES, transform.size, 2)).astype(np.float32) @ (1, 1j)
    for backward in (0, 1):
        got = values.astype(np.complex64)
        launch(library, f"transform_{name}", (1, 1, 1), transform.threads * LINES, got, backward)
        expected = np.fft.ifft(values, norm="forward") if backward else np.fft.fft(values)
        assert np.linalg.norm(got - expected) < 3e-7 * np.linalg.norm(expected)


@pytest.mark.parametrize("slots", [MAX_RADIX, FEW_SLOTS])
def test_every_smooth_size_has_a_plan_that_fits(slots):
    for n in SMOOTH:
        if slots == FEW_SLOTS and not can_transform(n):
            # A team would be too large: only sizes near the upper end.
            assert n > 360
            continue
        transform = plan(n, slots)
        assert math.prod(transform.radices) == n
        assert transform.slots <= slots
        assert transform.threads <= MAX_THREADS
        assert all(transform.rounds(r) * transform.threads * r >= n for r in transform.radices)


def test_the_usual_sizes_need_one_exchange():
    assert plan(128).radices == (16, 8)
    assert plan(256).radices == (16, 16)
    assert all(len(plan(n).radices) == 2 for n in (64, 96, 112, 144, 224, 240))


def test_no_idle_threads_at_powers_of_two():
    for n in (64, 128, 256, 512):
        transform = plan(n)
        assert all(n // r % transform.threads == 0 for r in transform.radices)


@pytest.mark.parametrize("n", [1, 22, 121, 130, 1 << 14])
def test_what_cannot_be_transformed(n):
    assert not can_transform(n)
    with pytest.raises(ValueError, match=f"length {n}"):
        plan(n)


def test_a_codelet_needs_small_primes():
    with pytest.raises(ValueError, match="radix 11"):
        butterfly(11)


def test_operations_of_a_codelet():
    """Real additions of radix 4 and 8 are those of the textbook; nothing is computed twice."""
    assert count("+-", butterfly(4)) == 16
    assert count("*", butterfly(4)) == 0
    assert count("+-", butterfly(8)) == 52
    assert count("*", butterfly(8)) == 4


def count(operators, source):
    expressions = [line.split(" = ")[1] for line in source.splitlines() if "const float" in line]
    return sum(e.count(f" {o} ") for e in expressions for o in operators)
