// Small kernels around the pencils: ramps before, sums in a fixed order behind.

// exp(-2 pi i f d) for both axes of a pattern; grid (patterns).
KERNEL(SUM_THREADS) ramps(Record task, int) {
    const long long pattern = blockIdx.x;
    const double d_y = task->shifts[2 * pattern], d_x = task->shifts[2 * pattern + 1];
    for (int i = threadIdx.x; i < NY + STORED; i += SUM_THREADS) {
        const bool vertical = i < NY;
        const int k = vertical ? i : frequency_of(i - NY), n = vertical ? NY : NX;
        const double turns = (2 * k < n ? k : k - n) * (vertical ? d_y : d_x) / n;
        Complex e;
        sincospif((float)(-2.0 * (turns - rint(turns))), &e.y, &e.x);
        if (vertical)
            task->ramp_y[pattern * NY + i] = e;
        else
            task->ramp_x[pattern * STORED + i - NY] = e;
    }
}

INLINE double2 sum_of(const double2* parts, int count) {
    double2 total = {0.0, 0.0};
    for (int part = 0; part < count; ++part) {
        total.x += parts[part].x;
        total.y += parts[part].y;
    }
    return total;
}

// Loss and sum of squares of every pattern, one thread each.
KERNEL(SUM_THREADS) sum_losses(Record task, int) {
    constexpr int GROUPS = LIT_GROUPS + DARK_GROUPS;
    const long long pattern = (long long)blockIdx.x * SUM_THREADS + threadIdx.x;
    if (pattern >= task->batch) return;
    task->result[pattern] = sum_of(task->loss_parts + pattern * GROUPS, GROUPS);
    if (LIGHT && task->pull != nullptr)
        task->pull[pattern] = sum_of(task->pull_parts + pattern * GROUPS, GROUPS);
}

// Adds the weighted derivatives of the loss of all patterns, one thread per pixel.
KERNEL(SUM_THREADS) sum_slopes(Record task, int) {
    constexpr long long PIXELS = (long long)DATA_NY * DATA_NX;
    const long long at = (long long)blockIdx.x * SUM_THREADS + threadIdx.x;
    if (at >= PIXELS) return;
    double total = 0.0;
    for (long long pattern = 0; pattern < task->batch; ++pattern)
        total += task->slopes[pattern * PIXELS + at];
    task->slope_sum[at] += (float)(total * task->weight);
}

// Gradients of the shifts, one thread per pattern.
KERNEL(SUM_THREADS) sum_shifts(Record task, int) {
    const long long pattern = (long long)blockIdx.x * SUM_THREADS + threadIdx.x;
    if (pattern >= task->batch) return;
    constexpr int PARTS = MODES * LIT_GROUPS;
    const double2 total = sum_of(task->shift_parts + pattern * PARTS, PARTS);
    constexpr double TURN = -2.0 * 3.14159265358979323846;
    task->shift_gradient[pattern] = {TURN / NY * total.x, TURN / NX * total.y};
}

// Slopes by the tilt of the specimen, one thread per gap and pattern.
KERNEL(SUM_THREADS) sum_tilts(Record task, int gaps) {
    const long long at = (long long)blockIdx.x * SUM_THREADS + threadIdx.x;
    if (!TILT || at >= gaps * task->batch) return;
    constexpr int PARTS = MODES * LIT_GROUPS;
    task->tilt_gradient[at] = sum_of(task->tilt_parts + at * PARTS, PARTS);
}

// Adds the chunks' gradients of the probe, or of its spectrum, whose dark columns get none.
INLINE void sum_parts(const Task* task, int width) {
    const long long size = (long long)MODES * NY * width;
    const long long at = (long long)blockIdx.x * SUM_THREADS + threadIdx.x;
    if (at >= size) return;
    double re = 0.0, im = 0.0;
    for (long long chunk = 0; chunk * CHUNK < task->batch; ++chunk) {
        const Complex part = task->probe_parts[chunk * size + at];
        re += part.x;
        im += part.y;
    }
    const int column = at % width;
    const int x = width == NX ? column : frequency_of(column);
    Complex* target = task->probe_gradient + at / width * NX + x;
    *target = *target + Complex{(float)re, (float)im};
}

KERNEL(SUM_THREADS) sum_probe(Record task, int) { sum_parts(task, NX); }

KERNEL(SUM_THREADS) sum_spectrum(Record task, int) { sum_parts(task, STORED); }

// Adds the fixed-point words of the object's gradient to the gradient, if there is one, and clears
// them.
KERNEL(SUM_THREADS) decode(Record task, int slices) {
    const long long size = 2LL * slices * task->object_rows * task->object_columns;
    const long long at = (long long)blockIdx.x * SUM_THREADS + threadIdx.x;
    if (at >= size) return;
    const long long word = task->object_words[at];
    task->object_words[at] = 0;
    if (task->object_gradient != nullptr)
        ((float*)task->object_gradient)[at] += (float)((double)word / task->quanta);
    const unsigned long long size_of_word = word < 0 ? -word : word;
    if (size_of_word > *task->largest) atomicMax(task->largest, size_of_word);
}
