// Kernels of the columns: everything that happens in Fourier space.
// Blocks of COLUMNS columns; grid (groups of columns, patterns or chunks of patterns, modes).

constexpr int COLUMN_THREADS = COLUMNS * AlongY::THREADS;
constexpr int LIT_GROUPS = (STORED + COLUMNS - 1) / COLUMNS;
constexpr int DARK_GROUPS = (DARK + COLUMNS - 1) / COLUMNS;

struct Column {
    int t, number, reach;
    bool inside;
    Complex* line;

    INLINE Column(const Task* task, Complex* room) {
        const int c = threadIdx.x % COLUMNS;
        t = threadIdx.x / COLUMNS;
        number = blockIdx.x * COLUMNS + c;
        inside = number < STORED;
        reach = inside ? task->reach[number] : -1;
        line = room + c;
    }

    // A column in mixed space into the registers before a forward transform.
    INLINE void load(const Complex* wave, Complex* v) const {
        visit<AlongY, AlongY::FIRST>(t, [&](int s, int y) {
            v[s] = inside ? wave[(long long)y * PITCH + number] : Complex{0.0f, 0.0f};
        });
    }

    // The registers after an inverse transform into a column in mixed space.
    INLINE void store(const Complex* v, Complex* wave) const {
        visit<AlongY, AlongY::FIRST>(t, [&](int s, int y) {
            if (inside) wave[(long long)y * PITCH + number] = v[s];
        });
    }

    // Calls f(slot, ky) for what lies within the band limit and makes the rest zero.
    template <class F>
    INLINE void within_limit(Complex* v, F&& f) const {
        visit<AlongY, AlongY::LAST>(t, [&](int s, int ky) {
            if (lit(ky, reach))
                f(s, ky);
            else
                v[s] = {0.0f, 0.0f};
        });
    }
};

#define COLUMN_ROOM __shared__ Complex room[COLUMNS * padded(AlongY::SIZE)]

// Propagation over gap z: w <- F^-1 [ p F w ]; the factor 1/(NX NY) lies in the propagator.
KERNEL(COLUMN_THREADS) propagate(Record task, int z) {
    COLUMN_ROOM;
    const Column column(task, room);
    const long long start = mixed_row(blockIdx.y, blockIdx.z, 0);
    Complex v[AlongY::SLOTS] = {};
    column.load(task->wave + start, v);
    AlongY::forward(v, column.line, column.t);
    if (column.inside) {
        const Complex* p_y = task->propagator_y + z * NY;
        const Complex p_x = task->propagator_x[z * STORED + column.number];
        column.within_limit(v, [&](int s, int ky) { v[s] = v[s] * (__ldg(&p_y[ky]) * p_x); });
    }
    AlongY::inverse(v, column.line, column.t);
    column.store(v, incoming_of(task, z + 1) + start);
}

// Sum of Im(a* g) times the frequencies over the block, a being the spectrum behind gap z and g the
// gradient of it; NY times too large, like the transform of what propagate stored.
INLINE double2 slopes_by_tilt(const Task* task, const Column& column, int z, const Complex* g,
                              double2* sums) {
    Complex a[AlongY::SLOTS] = {};
    column.load(incoming_of(task, z + 1) + mixed_row(blockIdx.y, blockIdx.z, 0), a);
    AlongY::forward(a, column.line, column.t);
    float along_y = 0.0f, along_x = 0.0f;
    if (column.inside) {
        const float f_x = signed_frequency(frequency_of(column.number), NX);
        visit<AlongY, AlongY::LAST>(column.t, [&](int s, int ky) {
            const float v = lit(ky, column.reach) ? conj_times(a[s], g[s]).y : 0.0f;
            along_y += v * signed_frequency(ky, NY);
            along_x += v * f_x;
        });
    }
    return block_sum<COLUMN_THREADS>({along_y, along_x}, sums);
}

// Adjoint of propagate, in place; the slopes by the tilt on demand.
template <bool SLOPES>
INLINE void pull_through_gap(const Task* task, int z, Complex* room, double2* sums) {
    const Column column(task, room);
    Complex* wave = task->wave + mixed_row(blockIdx.y, blockIdx.z, 0);
    Complex v[AlongY::SLOTS] = {};
    column.load(wave, v);
    AlongY::forward(v, column.line, column.t);
    if (SLOPES) {
        const double2 total = slopes_by_tilt(task, column, z, v, sums);
        const long long part = (z * task->batch + blockIdx.y) * MODES + blockIdx.z;
        if (threadIdx.x == 0) task->tilt_parts[part * LIT_GROUPS + blockIdx.x] = total;
    }
    if (column.inside) {
        const Complex* p_y = task->propagator_y + z * NY;
        const Complex p_x = task->propagator_x[z * STORED + column.number];
        column.within_limit(
            v, [&](int s, int ky) { v[s] = conj_times(__ldg(&p_y[ky]) * p_x, v[s]); });
    }
    AlongY::inverse(v, column.line, column.t);
    column.store(v, wave);
}

KERNEL(COLUMN_THREADS) propagate_vjp(Record task, int z) {
    COLUMN_ROOM;
    pull_through_gap<false>(task, z, room, nullptr);
}

// A kernel of its own, as it needs nearly twice the registers.
KERNEL(COLUMN_THREADS) propagate_tilted_vjp(Record task, int z) {
    COLUMN_ROOM;
    __shared__ double2 sums[COLUMN_THREADS];
    if (TILT) pull_through_gap<TILT>(task, z, room, sums);
}

// The probe's spectrum / (NX NY) at the position of the pattern, back along y: the wave in front of
// slice 0.
KERNEL(COLUMN_THREADS) illuminate(Record task, int z) {
    COLUMN_ROOM;
    const Column column(task, room);
    const int pattern = blockIdx.y, mode = blockIdx.z;
    Complex v[AlongY::SLOTS] = {};
    if (column.inside) {
        const Complex* spectrum = task->probe + (long long)mode * NY * NX;
        spectrum += frequency_of(column.number);
        const Complex* e_y = task->ramp_y + (long long)pattern * NY;
        const Complex e_x = task->ramp_x[(long long)pattern * STORED + column.number];
        column.within_limit(v, [&](int s, int ky) {
            v[s] = __ldg(&spectrum[(long long)ky * NX]) * (e_y[ky] * e_x);
        });
    }
    AlongY::inverse(v, column.line, column.t);
    column.store(v, incoming_of(task, z) + mixed_row(pattern, mode, 0));
}

// Adjoint of illuminate over a chunk of patterns: the gradients of the spectrum and of the shifts.
KERNEL(COLUMN_THREADS) illuminate_vjp(Record task, int) {
    COLUMN_ROOM;
    __shared__ double2 sums[COLUMN_THREADS];
    const Column column(task, room);
    const int mode = blockIdx.z, kx = frequency_of(column.number);
    const Complex* spectrum = task->probe + (long long)mode * NY * NX + kx;
    const float f_x = signed_frequency(kx, NX);
    Complex own[AlongY::SLOTS] = {};
    const int end = least((blockIdx.y + 1) * CHUNK, task->batch);
    for (int pattern = blockIdx.y * CHUNK; pattern < end; ++pattern) {
        Complex g[AlongY::SLOTS] = {};
        column.load(task->wave + mixed_row(pattern, mode, 0), g);
        AlongY::forward(g, column.line, column.t);
        float slope_y = 0.0f, slope_x = 0.0f;
        if (column.inside) {
            const Complex* e_y = task->ramp_y + (long long)pattern * NY;
            const Complex e_x = task->ramp_x[(long long)pattern * STORED + column.number];
            column.within_limit(g, [&](int s, int ky) {
                const Complex back = conj_times(e_y[ky] * e_x, g[s]);
                own[s] = own[s] + back;
                const float v = conj_times(__ldg(&spectrum[(long long)ky * NX]), back).y;
                slope_y += v * signed_frequency(ky, NY);
                slope_x += v * f_x;
            });
        }
        if (task->shift_gradient != nullptr) {
            const double2 total = block_sum<COLUMN_THREADS>({slope_y, slope_x}, sums);
            if (threadIdx.x == 0)
                task->shift_parts[(pattern * MODES + mode) * LIT_GROUPS + blockIdx.x] = total;
        }
    }
    if (task->probe_gradient == nullptr || !column.inside) return;
    Complex* part = task->probe_parts + ((long long)blockIdx.y * MODES + mode) * NY * STORED;
    visit<AlongY, AlongY::LAST>(column.t, [&](int s, int ky) {
        part[(long long)ky * STORED + column.number] = own[s];
    });
}

// Pixel of a pattern at a frequency of the window, or -1: the edges of the window may be cropped.
INLINE int pixel_of(int ky, int kx) {
    const int y = measured_at<NY, DATA_NY>(ky), x = measured_at<NX, DATA_NX>(kx);
    const bool cropped = NY != DATA_NY || NX != DATA_NX;
    return cropped && (y < 0 || x < 0) ? -1 : y * DATA_NX + x;
}

struct Total {
    float value = 0.0f, sse = 0.0f, pull = 0.0f;

    // Adds a pixel of a pattern with the intensity of the waves there and returns dl/dI.
    INLINE float add(const Task* task, int pattern, int pixel, float of_waves) {
        const long long at = (long long)pattern * DATA_NY * DATA_NX + pixel;
        const float data = (float)__ldg((const Datum*)task->data + at) * (float)task->data_scale;
        const float intensity = BACKGROUND ? of_waves + __ldg(&task->background[pixel]) : of_waves;
        const Compared compared = compare<LOSS>(intensity, data, (float)task->floor);
        value += compared.value;
        sse += (intensity - data) * (intensity - data);
        if (LIGHT) pull += compared.slope * of_waves;
        if (BACKGROUND && task->slope_sum != nullptr) task->slopes[at] = compared.slope;
        return compared.slope;
    }
};

// Columns beyond the band limit, where no wave is: only the data count.
INLINE Total detect_dark(const Task* task) {
    Total total;
    const int number = (blockIdx.x - LIT_GROUPS) * COLUMNS + threadIdx.x % COLUMNS;
    if (number < DARK) {
        for (int ky = threadIdx.x / COLUMNS; ky < NY; ky += AlongY::THREADS) {
            const int pixel = pixel_of(ky, LOW + number);
            if (pixel >= 0) total.add(task, blockIdx.y, pixel, 0.0f);
        }
    }
    return total;
}

// Intensity over all modes, loss and the gradient of the wave, which replaces it.
INLINE Total detect_lit(const Task* task, Complex* room) {
    const Column column(task, room);
    const int pattern = blockIdx.y;
    Complex v[AlongY::SLOTS] = {};
    float factor[AlongY::SLOTS] = {};
    for (int mode = 0; mode < MODES; ++mode) {
        column.load(task->wave + mixed_row(pattern, mode, 0), v);
        AlongY::forward(v, column.line, column.t);
#pragma unroll
        for (int s = 0; s < AlongY::SLOTS; ++s) factor[s] += v[s].x * v[s].x + v[s].y * v[s].y;
    }
    Total total;
    if (column.inside) {
        const int kx = frequency_of(column.number);
        const float share = (LIGHT ? (float)task->light[pattern] : 1.0f) / MODES;
        visit<AlongY, AlongY::LAST>(column.t, [&](int s, int ky) {
            const int pixel = pixel_of(ky, kx);
            const bool seen = lit(ky, column.reach);
            const float of_waves = seen ? factor[s] * share : 0.0f;
            const float slope = pixel < 0 ? 0.0f : total.add(task, pattern, pixel, of_waves);
            factor[s] = seen ? slope * (float)task->weight * (2.0f * share) : 0.0f;
        });
    }
    if (!task->wants_gradient) return total;
    // The last mode is still in the registers; the others are transformed again.
    for (int mode = MODES - 1; mode >= 0; --mode) {
        Complex* wave = task->wave + mixed_row(pattern, mode, 0);
        if (mode < MODES - 1) {
            column.load(wave, v);
            AlongY::forward(v, column.line, column.t);
        }
#pragma unroll
        for (int s = 0; s < AlongY::SLOTS; ++s) v[s] = v[s] * factor[s];
        AlongY::inverse(v, column.line, column.t);
        column.store(v, wave);
    }
    return total;
}

KERNEL(COLUMN_THREADS) detect(Record task, int) {
    COLUMN_ROOM;
    __shared__ double2 sums[COLUMN_THREADS];
    const Total own = blockIdx.x < LIT_GROUPS ? detect_lit(task, room) : detect_dark(task);
    const double2 total = block_sum<COLUMN_THREADS>({own.value, own.sse}, sums);
    const int part = blockIdx.y * (LIT_GROUPS + DARK_GROUPS) + blockIdx.x;
    if (threadIdx.x == 0) task->loss_parts[part] = total;
    if (LIGHT && task->pull != nullptr) {
        const double2 pull = block_sum<COLUMN_THREADS>({own.pull, 0.0}, sums);
        if (threadIdx.x == 0) task->pull_parts[part] = pull;
    }
}
