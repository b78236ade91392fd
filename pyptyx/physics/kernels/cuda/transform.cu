// One-dimensional transforms of a line by a team of threads; the plans are in transforms.py.
//
// A line type L has SIZE, THREADS (the team), SLOTS (registers of a thread), STEP (distance of
// neighbours in shared memory), IN_WARP (whether no team is spread over warps), FIRST and LAST
// (radices) and twiddle(k) = exp(-2 pi i k / SIZE).

#define INLINE __device__ __forceinline__

typedef float2 Complex;

INLINE Complex operator+(Complex a, Complex b) { return {a.x + b.x, a.y + b.y}; }

INLINE Complex operator*(Complex a, Complex b) {
    return {a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x};
}

INLINE Complex operator*(Complex a, float b) { return {a.x * b, a.y * b}; }

// conj(a) b
INLINE Complex conj_times(Complex a, Complex b) {
    return {a.x * b.x + a.y * b.y, a.x * b.y - a.y * b.x};
}

// The DFT of R values in natural order, in place (see codelets.py).
template <int R>
INLINE void butterfly(Complex* x);

// One element in sixteen is left free, so that strides of 8 and 16 hit different banks.
__device__ constexpr int padded(int i) { return i + (i >> 4); }

// Calls f(slot, index) for the values of the line that thread t holds before or after radix R.
template <class L, int R, class F>
INLINE void visit(int t, F&& f) {
    constexpr int BUTTERFLIES = L::SIZE / R;
    constexpr int ROUNDS = (BUTTERFLIES + L::THREADS - 1) / L::THREADS;
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round) {
        const int m = t + round * L::THREADS;
        if (ROUNDS * L::THREADS == BUTTERFLIES || m < BUTTERFLIES) {
#pragma unroll
            for (int j = 0; j < R; ++j) f(round * R + j, m + j * BUTTERFLIES);
        }
    }
}

// Twiddles and butterflies of radix R after radices of product S.
template <class L, int R, int S>
INLINE void stage(Complex* v, int t) {
    constexpr int BUTTERFLIES = L::SIZE / R;
    constexpr int ROUNDS = (BUTTERFLIES + L::THREADS - 1) / L::THREADS;
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round) {
        const int k = (t + round * L::THREADS) % S;
        if (S > 1) {
#pragma unroll
            for (int j = 1; j < R; ++j)
                v[round * R + j] = v[round * R + j] * L::twiddle(j * k * (BUTTERFLIES / S));
        }
        butterfly<R>(v + round * R);
    }
}

// Barrier of the team, if not of more.
template <class L>
INLINE void team_barrier() {
    if (L::IN_WARP)
        __syncwarp();
    else
        __syncthreads();
}

// From the registers after radix R to those before radix NEXT.
template <class L, int R, int S, int NEXT>
INLINE void exchange(Complex* v, Complex* line, int t) {
    constexpr int BUTTERFLIES = L::SIZE / R;
    visit<L, R>(t, [&](int slot, int index) {
        const int m = index % BUTTERFLIES, k = m % S;
        line[padded((m - k) * R + k + index / BUTTERFLIES * S) * L::STEP] = v[slot];
    });
    team_barrier<L>();
    visit<L, NEXT>(t, [&](int slot, int index) { v[slot] = line[padded(index) * L::STEP]; });
    team_barrier<L>();
}

template <class L, int S, int R>
INLINE void run(Complex* v, Complex*, int t) {
    stage<L, R, S>(v, t);
}

// All radices of a forward transform; S is the product of those that are done.
template <class L, int S, int R, int NEXT, int... REST>
INLINE void run(Complex* v, Complex* line, int t) {
    stage<L, R, S>(v, t);
    exchange<L, R, S, NEXT>(v, line, t);
    run<L, S * R, NEXT, REST...>(v, line, t);
}

// A transform between two exchanges of real and imaginary parts is the inverse without its 1/n.
template <int SLOTS>
INLINE void exchange_parts(Complex* v) {
#pragma unroll
    for (int s = 0; s < SLOTS; ++s) v[s] = {v[s].y, v[s].x};
}
