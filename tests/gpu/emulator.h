// The part of CUDA that the kernels use, on one CPU core.
//
// Blocks run one after the other.  The threads of a block are fibers: each runs to the next barrier
// before the following one is resumed, and the order turns round at every barrier, so that values
// that are read without a barrier in between are wrong ones.
#pragma once

#include <cmath>
#include <cstdlib>
#include <vector>
#include <ucontext.h>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __shared__ static

struct float2 {
    float x, y;
};
struct double2 {
    double x, y;
};
struct Index {
    unsigned x, y, z;
};

static Index blockIdx, threadIdx;

namespace emulation {

constexpr size_t STACK = 256 * 1024;

struct Fiber {
    ucontext_t context;
    bool finished;
};

static std::vector<Fiber> fibers;
static std::vector<char> stacks;
static ucontext_t scheduler;
static void (*entry)(const void*, int);
static const void* entry_task;
static int entry_number;

static void fiber_main() {
    const unsigned self = threadIdx.x;
    entry(entry_task, entry_number);
    fibers[self].finished = true;
    swapcontext(&fibers[self].context, &scheduler);
}

// Whether all threads went through the same barriers.
static bool run_block(unsigned threads) {
    for (unsigned i = 0; i < threads; ++i) {
        Fiber& fiber = fibers[i];
        fiber.finished = false;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = stacks.data() + i * STACK;
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, fiber_main, 0);
    }
    for (bool forward = true;; forward = !forward) {
        unsigned finished = 0;
        for (unsigned n = 0; n < threads; ++n) {
            const unsigned i = forward ? n : threads - 1 - n;
            threadIdx = {i, 0, 0};
            swapcontext(&scheduler, &fibers[i].context);
            finished += fibers[i].finished;
        }
        if (finished == threads) return true;
        if (finished) return false;
    }
}

}  // namespace emulation

inline void __syncthreads() {
    const unsigned self = threadIdx.x;
    swapcontext(&emulation::fibers[self].context, &emulation::scheduler);
}

// A barrier of a warp is one of the block here.
inline void __syncwarp() { __syncthreads(); }

// 0, or 1 if a barrier was not reached by all threads of a block.
extern "C" int emulate(
    void (*kernel)(const void*, int), const unsigned* grid, unsigned threads, const void* task,
    int number) {
    using namespace emulation;
    fibers.resize(threads);
    stacks.resize(threads * STACK);
    entry = kernel;
    entry_task = task;
    entry_number = number;
    for (unsigned z = 0; z < grid[2]; ++z)
        for (unsigned y = 0; y < grid[1]; ++y)
            for (unsigned x = 0; x < grid[0]; ++x) {
                blockIdx = {x, y, z};
                if (!run_block(threads)) return 1;
            }
    return 0;
}

template <class T>
inline T __ldg(const T* address) {
    return *address;
}

inline long long __float2ll_rn(float value) { return std::llrint(value); }

inline void sincospif(float turns, float* sine, float* cosine) {
    *sine = (float)std::sin(M_PI * turns);
    *cosine = (float)std::cos(M_PI * turns);
}

template <class T>
inline void atomicAdd(T* address, T value) {
    *address += value;
}

template <class T>
inline void atomicMax(T* address, T value) {
    if (value > *address) *address = value;
}
