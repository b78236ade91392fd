// Element-wise segments between two FFTs; reference.py defines what each of them computes.
//
// Every kernel takes one record, which the integer tables of the batch follow, and one integer.
// Waves are (batch, modes, object_modes, ny, nx).  A kernel that only reads a wave takes it as
// `incoming`, whose steps are zero along the axes of length 1 that serve all.

#define INLINE __device__ __forceinline__
#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)

typedef const Task* __restrict__ Record;

INLINE Complex operator+(Complex a, Complex b) { return {a.x + b.x, a.y + b.y}; }

INLINE Complex operator*(Complex a, Complex b) {
    return {a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x};
}

INLINE Complex conj_times(Complex a, Complex b) {
    return {a.x * b.x + a.y * b.y, a.x * b.y - a.y * b.x};
}

INLINE const int* table(const Task* task, long long start) {
    return (const int*)(task + 1) + start;
}

INLINE int parts_of(int size, int part) { return (size + part - 1) / part; }

INLINE int least(int a, int b) { return a < b ? a : b; }

// -- one thread per pixel of a pattern -----------------------------------------------------------

struct Pixel {
    long long pattern;
    int at, y, x, size;
    bool inside;

    INLINE explicit Pixel(const Task* task) {
        const int nx = task->nx;
        size = (int)task->ny * nx;
        const int tiles = parts_of(size, THREADS);
        pattern = blockIdx.x / tiles;
        at = blockIdx.x % tiles * THREADS + threadIdx.x;
        y = at / nx;
        x = at - y * nx;
        inside = at < size;
    }
};

// Element of an object's plane at the pixel of the pattern's window.
INLINE long long object_place(const Task* task, const Pixel& pixel) {
    const int* corner = table(task, task->corners) + 2 * pixel.pattern;
    return (corner[0] + pixel.y) * task->object_columns + corner[1] + pixel.x;
}

// Element where slice z of an object's mode begins.
INLINE long long object_plane(const Task* task, int mode, int z) {
    return (mode * task->slices + z) * task->object_rows * task->object_columns;
}

// Whether (y, x) lies within the band limit.
INLINE bool lit(const Task* task, int y, int x) {
    const int* extent = table(task, task->extent) + 2 * y;
    return x < extent[0] || x >= task->nx - extent[1];
}

INLINE Complex ramp(const Task* task, long long pattern, int y, int x) {
    return __ldg(&task->ramp_y[pattern * task->ny + y]) *
           __ldg(&task->ramp_x[pattern * task->nx + x]);
}

KERNEL transmit(Record task, int z) {
    const Pixel pixel(task);
    if (!pixel.inside) return;
    const long long place = object_place(task, pixel);
    const int modes = task->modes, object_modes = task->object_modes;
    Complex* wave = task->wave + pixel.pattern * modes * object_modes * pixel.size + pixel.at;
    const Complex* incoming = task->incoming + pixel.pattern * task->step_pattern + pixel.at;
    for (int o = 0; o < object_modes; ++o) {
        const Complex t = __ldg(&task->object[object_plane(task, o, z) + place]);
        for (int p = 0; p < modes; ++p)
            wave[((long long)p * object_modes + o) * pixel.size] =
                t * __ldg(&incoming[p * task->step_mode + o * task->step_object]);
    }
}

// The gradient behind the object's value t becomes that in front of it, at one pixel of every probe
// mode; returns the gradient of t if it is wanted.
INLINE Complex pull_back(const Task* task, long long pattern, int o, int at, Complex t) {
    const int modes = task->modes;
    const long long size = task->ny * task->nx, step = task->object_modes * size;
    Complex* wave = task->wave + pattern * modes * step + o * size + at;
    const Complex* incoming =
        task->incoming + pattern * task->step_pattern + o * task->step_object + at;
    Complex sum = {0, 0};
    for (int p = 0; p < modes; ++p) {
        const Complex g = wave[p * step];
        if (task->target != nullptr)
            sum = sum + conj_times(__ldg(&incoming[p * task->step_mode]), g);
        wave[p * step] = conj_times(t, g);
    }
    return sum;
}

INLINE void add_atomically(Complex* target, Complex value) {
#if VECTOR_ATOMICS && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    atomicAdd(target, value);
#else
    atomicAdd(&target->x, value.x);
    atomicAdd(&target->y, value.y);
#endif
}

KERNEL transmit_vjp(Record task, int z) {
    const Pixel pixel(task);
    if (!pixel.inside) return;
    const long long place = object_place(task, pixel);
    for (int o = 0; o < (int)task->object_modes; ++o) {
        const long long element = object_plane(task, o, z) + place;
        const Complex t = __ldg(&task->object[element]);
        const Complex sum = pull_back(task, pixel.pattern, o, pixel.at, t);
        if (task->target != nullptr) add_atomically(task->target + element, sum);
    }
}

KERNEL modulate(Record task, int) {
    const Pixel pixel(task);
    if (!pixel.inside) return;
    const int modes = task->modes;
    Complex* out = task->wave + pixel.pattern * modes * pixel.size + pixel.at;
    const bool passes = lit(task, pixel.y, pixel.x);
    const Complex factor =
        passes ? ramp(task, pixel.pattern, pixel.y, pixel.x) : Complex{0, 0};
    const Complex* source =
        task->incoming +
        (long long)table(task, task->rows)[pixel.pattern] * modes * pixel.size + pixel.at;
    for (int p = 0; p < modes; ++p) {
        const long long mode = (long long)p * pixel.size;
        out[mode] = passes ? factor * __ldg(&source[mode]) : factor;
    }
}

KERNEL gather(Record task, int) {
    const Pixel pixel(task);
    if (!pixel.inside) return;
    const long long place = object_place(task, pixel);
    const int planes = task->object_modes;
    Complex* out = task->wave + pixel.pattern * planes * pixel.size + pixel.at;
    for (int c = 0; c < planes; ++c)
        out[(long long)c * pixel.size] = __ldg(&task->object[object_plane(task, c, 0) + place]);
}

// -- sums over the batch in a fixed order --------------------------------------------------------

// A block has COLUMNS neighbouring pixels of one row of an area, and LANES shares of the batch.
struct Spot {
    int lane, plane, y, x;
    bool inside;

    INLINE explicit Spot(const Task* task) {
        const int height = task->area_rows, width = task->area_columns;
        const int tiles = parts_of(width, COLUMNS);
        const int row = blockIdx.x / tiles;
        lane = threadIdx.x / COLUMNS;
        plane = row / height;
        y = task->area_top + row % height;
        const int across = blockIdx.x % tiles * COLUMNS + threadIdx.x % COLUMNS;
        x = task->area_left + across;
        inside = across < width;
    }

    // Element of the window of a pattern that lies here, or -1.
    INLINE int within(const Task* task, int pattern) const {
        const int* corner = table(task, task->corners) + 2 * pattern;
        const unsigned v = y - corner[0], u = x - corner[1];
        return v < task->ny && u < task->nx ? (int)(v * task->nx + u) : -1;
    }
};

// Adds the contributions of all patterns to a target: every lane those of its share in their order,
// then the lanes in theirs.
template <class Contribution>
INLINE void add_in_order(
    const Task* task, const Spot& spot, Complex* target, Contribution contribution) {
    __shared__ Complex sums[LANES][COLUMNS];
    const int column = threadIdx.x % COLUMNS, share = parts_of(task->batch, LANES);
    const int end = least(task->batch, (spot.lane + 1) * share);
    Complex sum = {0, 0};
    if (spot.inside)
        for (int pattern = spot.lane * share; pattern < end; ++pattern)
            sum = sum + contribution(pattern);
    sums[spot.lane][column] = sum;
    __syncthreads();
    if (spot.lane > 0 || !spot.inside) return;
    for (int lane = 1; lane < LANES; ++lane) sum = sum + sums[lane][column];
    *target = *target + sum;
}

KERNEL transmit_vjp_in_order(Record task, int z) {
    const Spot spot(task);
    const long long element = object_plane(task, spot.plane, z) +
                              spot.y * task->object_columns + spot.x;
    const Complex t = spot.inside ? __ldg(&task->object[element]) : Complex{0, 0};
    add_in_order(task, spot, task->target + element, [&](int pattern) {
        const int at = spot.within(task, pattern);
        return at < 0 ? Complex{0, 0} : pull_back(task, pattern, spot.plane, at, t);
    });
}

KERNEL scatter_add(Record task, int) {
    const Spot spot(task);
    const long long size = task->ny * task->nx, planes = task->object_modes;
    const long long element = object_plane(task, spot.plane, 0) +
                              spot.y * task->object_columns + spot.x;
    add_in_order(task, spot, task->target + element, [&](int pattern) {
        const int at = spot.within(task, pattern);
        if (at < 0) return Complex{0, 0};
        return __ldg(&task->incoming[(pattern * planes + spot.plane) * size + at]);
    });
}

// Here the planes of the area are the modes of every scenario.
INLINE long long probe_place(const Task* task, const Spot& spot, long long plane) {
    return (plane * task->ny + spot.y) * task->nx + spot.x;
}

// Gradient at a spot if a pattern has the scenario of the spot, else 0.
INLINE Complex gradient_of(const Task* task, const Spot& spot, int pattern) {
    const int modes = task->modes;
    if (table(task, task->rows)[pattern] != spot.plane / modes) return {0, 0};
    const long long plane = (long long)pattern * modes + spot.plane % modes;
    return __ldg(&task->incoming[probe_place(task, spot, plane)]);
}

KERNEL modulate_vjp(Record task, int) {
    Spot spot(task);
    spot.inside = spot.inside && lit(task, spot.y, spot.x);
    Complex* target = task->target + probe_place(task, spot, spot.plane);
    add_in_order(task, spot, target, [&](int pattern) {
        return conj_times(
            ramp(task, pattern, spot.y, spot.x), gradient_of(task, spot, pattern));
    });
}

KERNEL add_rows(Record task, int) {
    const Spot spot(task);
    Complex* target = task->target + probe_place(task, spot, spot.plane);
    add_in_order(task, spot, target, [&](int pattern) {
        return gradient_of(task, spot, pattern);
    });
}

// -- losses --------------------------------------------------------------------------------------

enum Loss { LSQ_SQRT, ML, LSQ, LSQ_SQRT_2, ML_SHIFTED };

struct Compared {
    Real value, slope;
};

// l(I, D) and dl/dI.
INLINE Compared data_term(int loss, Real intensity, Real data, Real floor) {
    const Real residual = intensity - data;
    switch (loss) {
        case LSQ_SQRT: {
            const Real amplitude = sqrt(intensity), difference = amplitude - sqrt(data);
            return {difference * difference, difference / (amplitude > 0 ? amplitude : Real(1))};
        }
        case ML: {
            // In the dark the logarithm counts as that of 1.
            if (!(intensity > 0)) return {intensity, -data};
            const Real safe = intensity < floor ? floor : intensity;
            Real logarithm = log(safe);
            if (floor > 0) logarithm += (intensity - safe) / floor;
            return {intensity - data * logarithm, 1 - data / safe};
        }
        case LSQ:
            return {residual * residual, 2 * residual};
        case LSQ_SQRT_2:
            if (!(data > Real(0.5))) return {intensity, 1};
            return {Real(0.5) * residual * residual / data, residual / data};
        default: {
            const Real logarithm = log1p(intensity / floor);
            return {intensity - (data + floor) * logarithm, residual / (intensity + floor)};
        }
    }
}

// Sum over the block in a fixed order, valid in thread 0.
INLINE double2 block_sum(double2 own) {
    __shared__ double2 sums[THREADS];
    const int i = threadIdx.x;
    sums[i] = own;
    __syncthreads();
    for (int width = THREADS / 2; width > 0; width /= 2) {
        if (i < width) {
            sums[i].x += sums[i + width].x;
            sums[i].y += sums[i + width].y;
        }
        __syncthreads();
    }
    return sums[0];
}

// Blocks of PIXELS pixels per thread; loss and sum of squares of every block into loss_parts.
KERNEL compare(Record task, int) {
    const int size = task->ny * task->nx, modes = task->modes;
    const int tiles = parts_of(size, PIXELS * THREADS);
    const long long pattern = blockIdx.x / tiles;
    const int first = blockIdx.x % tiles * PIXELS * THREADS + threadIdx.x;
    const Real mean = Real(1) / modes, gain = task->gain, floor = task->floor;
    double2 sums = {0, 0};
    for (int i = 0; i < PIXELS; ++i) {
        const int at = first + i * THREADS;
        if (at >= size) break;
        Complex* wave = task->wave + pattern * modes * size + at;
        const Real pass = __ldg(&task->mask[at]), data = __ldg(&task->data[pattern * size + at]);
        Real intensity = 0;
        if (pass != 0)
            for (int m = 0; m < modes; ++m) {
                const Complex value = wave[(long long)m * size];
                intensity += value.x * value.x + value.y * value.y;
            }
        intensity *= mean * pass;
        const Compared term = data_term(task->loss, intensity, data, floor);
        const double difference = intensity - data;
        sums.x += term.value;
        sums.y += difference * difference;
        const Real factor = term.slope * (pass * gain);
        for (int m = 0; m < modes; ++m) {
            Complex* value = wave + (long long)m * size;
            *value = pass != 0 ? Complex{factor * value->x, factor * value->y} : Complex{0, 0};
        }
    }
    const double2 total = block_sum(sums);
    if (threadIdx.x == 0) task->loss_parts[blockIdx.x] = total;
}

// Loss and sum of squares of every pattern from its blocks, one thread each.
KERNEL sum_losses(Record task, int) {
    const int pattern = blockIdx.x * THREADS + threadIdx.x;
    if (pattern >= task->batch) return;
    const int tiles = parts_of(task->ny * task->nx, PIXELS * THREADS);
    const double2* parts = task->loss_parts + (long long)pattern * tiles;
    double2 total = {0, 0};
    for (int tile = 0; tile < tiles; ++tile) {
        total.x += parts[tile].x;
        total.y += parts[tile].y;
    }
    task->result[pattern] = total.x;
    task->result[task->batch + pattern] = total.y;
}

// -- marginals -----------------------------------------------------------------------------------

// Im(conj(a) g) of LANES rows: the sums along x, and along y those of these rows.
KERNEL imag_marginals(Record task, int) {
    __shared__ double tile[LANES][COLUMNS];
    const int ny = task->ny, nx = task->nx, modes = task->modes, size = ny * nx;
    const int groups = parts_of(ny, LANES);
    const long long pattern = blockIdx.x / groups;
    const int lane = threadIdx.x / COLUMNS, column = threadIdx.x % COLUMNS;
    const int y = blockIdx.x % groups * LANES + lane;
    const Complex* a = task->incoming + pattern * task->step_pattern;
    const Complex* g = task->wave + pattern * modes * size;
    double row = 0;
    for (int left = 0; left < nx; left += COLUMNS) {
        const int x = left + column;
        double sum = 0;
        if (y < ny && x < nx && lit(task, y, x))
            for (int m = 0; m < modes; ++m) {
                const long long at = (long long)m * size + y * nx + x;
                sum += conj_times(__ldg(&a[at]), __ldg(&g[at])).y;
            }
        row += sum;
        tile[lane][column] = sum;
        __syncthreads();
        if (lane == 0 && x < nx) {
            for (int other = 1; other < LANES; ++other) sum += tile[other][column];
            task->column_parts[(long long)blockIdx.x * nx + x] = sum;
        }
        __syncthreads();
    }
    tile[lane][column] = row;
    __syncthreads();
    if (column > 0 || y >= ny) return;
    for (int other = 1; other < COLUMNS; ++other) row += tile[lane][other];
    task->result[pattern * ny + y] = row;
}

// Sums along y of every column of a pattern, one thread each; they follow those of the rows.
KERNEL sum_columns(Record task, int) {
    const int at = blockIdx.x * THREADS + threadIdx.x, nx = task->nx;
    if (at >= task->batch * nx) return;
    const int groups = parts_of(task->ny, LANES);
    const double* parts = task->column_parts + (long long)(at / nx) * groups * nx + at % nx;
    double total = 0;
    for (int group = 0; group < groups; ++group) total += parts[(long long)group * nx];
    task->result[task->batch * task->ny + at] = total;
}
