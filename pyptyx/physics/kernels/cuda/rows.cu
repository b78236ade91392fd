// Kernels of the rows: everything that happens in real space.
// Blocks of ROWS rows; grid (groups of rows, patterns or chunks of patterns, modes).

constexpr int ROW_THREADS = ROWS * AlongX::THREADS;

struct Row {
    int t, y;
    bool inside;
    Complex* line;

    INLINE explicit Row(Complex* room) {
        t = threadIdx.x % AlongX::THREADS;
        const int r = threadIdx.x / AlongX::THREADS;
        y = blockIdx.x * ROWS + r;
        inside = y < NY;
        line = room + r * padded(AlongX::SIZE);
    }

    // A row in mixed space into the registers before an inverse transform.
    INLINE void load(const Complex* source, Complex* v) const {
        visit<AlongX, AlongX::LAST>(t, [&](int s, int kx) {
            const int column = stored_column(kx);
            v[s] = inside && column >= 0 ? source[column] : Complex{0.0f, 0.0f};
        });
    }

    // The registers after a forward transform into a row in mixed space.
    INLINE void store(const Complex* v, Complex* target) const {
        visit<AlongX, AlongX::LAST>(t, [&](int s, int kx) {
            const int column = stored_column(kx);
            if (inside && column >= 0) target[column] = v[s];
        });
    }
};

#define ROW_ROOM __shared__ Complex room[ROWS * padded(AlongX::SIZE)]

// Element of the object where row y of a pattern's window in slice z begins.
INLINE long long window_row(const Task* task, int pattern, int z, int y) {
    const int top = task->corners[2 * pattern], left = task->corners[2 * pattern + 1];
    return ((long long)z * task->object_rows + top + y) * task->object_columns + left;
}

INLINE void add_fixed(const Task* task, long long at, float value) {
    // A power of two scales exactly; the conversion rounds once, so any order of additions agrees.
    const float scaled = value * (float)task->quanta;
    if (!(fabsf(scaled) <= FIXED_LIMIT)) *task->overflow = 1;
    const long long quanta = __float2ll_rn(scaled);
    atomicAdd((unsigned long long*)task->object_words + at, (unsigned long long)quanta);
}

INLINE void add_to_object(const Task* task, long long at, Complex value) {
    if (DETERMINISTIC) {
        add_fixed(task, 2 * at, value.x);
        add_fixed(task, 2 * at + 1, value.y);
        return;
    }
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    atomicAdd((float2*)task->object_gradient + at, value);
#else
    atomicAdd((float*)task->object_gradient + 2 * at, value.x);
    atomicAdd((float*)task->object_gradient + 2 * at + 1, value.y);
#endif
}

INLINE bool wants_object(const Task* task) {
    return DETERMINISTIC ? task->object_words != nullptr : task->object_gradient != nullptr;
}

// Exit wave of slice z in mixed space from the wave in the registers.
INLINE void transmit_row(const Task* task, const Row& row, Complex* v, int z) {
    const int pattern = blockIdx.y;
    if (row.inside) {
        const Complex* window = task->object + window_row(task, pattern, z, row.y);
        visit<AlongX, AlongX::FIRST>(
            row.t, [&](int s, int x) { v[s] = v[s] * __ldg(&window[x]); });
    }
    AlongX::forward(v, row.line, row.t);
    row.store(v, task->wave + mixed_row(pattern, blockIdx.z, row.y));
}

// The probe, the same for all patterns, through slice 0.
KERNEL(ROW_THREADS) enter(Record task, int z) {
    ROW_ROOM;
    const Row row(room);
    Complex v[AlongX::SLOTS] = {};
    if (row.inside) {
        const Complex* probe = task->probe + ((long long)blockIdx.z * NY + row.y) * NX;
        visit<AlongX, AlongX::FIRST>(row.t, [&](int s, int x) { v[s] = __ldg(&probe[x]); });
    }
    transmit_row(task, row, v, z);
}

// The wave in front of slice z, in mixed space, through slice z.
KERNEL(ROW_THREADS) transmit(Record task, int z) {
    ROW_ROOM;
    const Row row(room);
    Complex v[AlongX::SLOTS] = {};
    row.load(incoming_of(task, z) + mixed_row(blockIdx.y, blockIdx.z, row.y), v);
    AlongX::inverse(v, row.line, row.t);
    transmit_row(task, row, v, z);
}

// Adjoint of transmit: the wave becomes the gradient in front of the slice; adds the object's.
KERNEL(ROW_THREADS) transmit_vjp(Record task, int z) {
    ROW_ROOM;
    const Row row(room);
    const int pattern = blockIdx.y;
    const long long place = window_row(task, pattern, z, row.y);
    Complex sum[AlongX::SLOTS] = {};
#pragma unroll 1
    for (int mode = 0; mode < MODES; ++mode) {
        const long long start = mixed_row(pattern, mode, row.y);
        Complex g[AlongX::SLOTS] = {};
        row.load(task->wave + start, g);
        AlongX::inverse(g, row.line, row.t);
        if (wants_object(task)) {
            Complex incoming[AlongX::SLOTS] = {};
            row.load(incoming_of(task, z) + start, incoming);
            AlongX::inverse(incoming, row.line, row.t);
            visit<AlongX, AlongX::FIRST>(row.t, [&](int s, int) {
                sum[s] = sum[s] + conj_times(incoming[s], g[s]);
            });
        }
        if (row.inside) {
            visit<AlongX, AlongX::FIRST>(row.t, [&](int s, int x) {
                g[s] = conj_times(__ldg(&task->object[place + x]), g[s]);
            });
        }
        AlongX::forward(g, row.line, row.t);
        row.store(g, task->wave + start);
    }
    if (wants_object(task) && row.inside) {
        visit<AlongX, AlongX::FIRST>(
            row.t, [&](int s, int x) { add_to_object(task, place + x, sum[s]); });
    }
}

// Adjoint of enter: the gradients of the object and, over a chunk of patterns, of the probe.
KERNEL(ROW_THREADS) enter_vjp(Record task, int z) {
    ROW_ROOM;
    const Row row(room);
    const Complex* probe = task->probe + (long long)row.y * NX;
    Complex own[MODES][AlongX::SLOTS] = {};
    const int end = least((blockIdx.y + 1) * CHUNK, task->batch);
    for (int pattern = blockIdx.y * CHUNK; pattern < end; ++pattern) {
        const long long place = window_row(task, pattern, z, row.y);
        Complex sum[AlongX::SLOTS] = {};
        for (int mode = 0; mode < MODES; ++mode) {
            Complex g[AlongX::SLOTS] = {};
            row.load(task->wave + mixed_row(pattern, mode, row.y), g);
            AlongX::inverse(g, row.line, row.t);
            if (!row.inside) continue;
            visit<AlongX, AlongX::FIRST>(row.t, [&](int s, int x) {
                sum[s] = sum[s] + conj_times(__ldg(&probe[mode * NY * NX + x]), g[s]);
                const Complex o = __ldg(&task->object[place + x]);
                own[mode][s] = own[mode][s] + conj_times(o, g[s]);
            });
        }
        if (wants_object(task) && row.inside) {
            visit<AlongX, AlongX::FIRST>(
                row.t, [&](int s, int x) { add_to_object(task, place + x, sum[s]); });
        }
    }
    if (task->probe_gradient == nullptr || !row.inside) return;
    for (int mode = 0; mode < MODES; ++mode) {
        Complex* part =
            task->probe_parts + (((long long)blockIdx.y * MODES + mode) * NY + row.y) * NX;
        visit<AlongX, AlongX::FIRST>(row.t, [&](int s, int x) { part[x] = own[mode][s]; });
    }
}
