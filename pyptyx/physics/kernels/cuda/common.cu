// What the kernels of the rows and of the columns share.
//
// A wave between two kernels is in mixed space: rows y in real space, columns kx in Fourier space,
// (batch, MODES, NY, PITCH).  Only columns inside the band limit are stored: the LOW ones from 0
// upwards and the HIGH ones below NX.

#define KERNEL(THREADS) extern "C" __global__ void __launch_bounds__(THREADS)

typedef const Task* __restrict__ Record;

constexpr int STORED = LOW + HIGH;
constexpr int DARK = NX - STORED;

// Stored column of kx, or -1.
INLINE int stored_column(int kx) {
    if (kx < LOW) return kx;
    return kx >= NX - HIGH ? kx - DARK : -1;
}

INLINE int frequency_of(int column) { return column < LOW ? column : column + DARK; }

INLINE int signed_frequency(int k, int n) { return k < (n + 1) / 2 ? k : k - n; }

// Where frequency k of a window of N has its pixel in a pattern of M, or -1.
template <int N, int M>
INLINE int measured_at(int k) {
    if (N == M || k < (M + 1) / 2) return k;
    return k >= N - M / 2 ? k - (N - M) : -1;
}

INLINE int least(int a, int b) { return a < b ? a : b; }

// Whether (ky, column) lies within the band limit; reach is the largest |ky| of the column.
INLINE bool lit(int ky, int reach) { return least(ky, NY - ky) <= reach; }

// Element where row y of a mode's wave of a pattern begins, in mixed space.
INLINE long long mixed_row(long long pattern, int mode, int y) {
    return ((pattern * MODES + mode) * NY + y) * PITCH;
}

// Slot of the incoming wave of slice z, or of the wave between two kernels.
INLINE Complex* incoming_of(const Task* task, int z) {
    return task->incoming + (long long)(z - FIRST_KEPT) * task->batch * MODES * NY * PITCH;
}

// Sums over the block in a fixed order; valid in thread 0.
template <int THREADS>
INLINE double2 block_sum(double2 own, double2* sums) {
    int width = 1;
    while (2 * width < THREADS) width *= 2;
    const int i = threadIdx.x;
    sums[i] = own;
    __syncthreads();
    for (; width > 0; width /= 2) {
        if (i < width && i + width < THREADS) {
            sums[i].x += sums[i + width].x;
            sums[i].y += sums[i + width].y;
        }
        __syncthreads();
    }
    const double2 total = sums[0];
    __syncthreads();
    return total;
}
