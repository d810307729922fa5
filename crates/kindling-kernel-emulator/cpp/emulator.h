// CUDA on the CPU, for tests: the language of kernels as plain C++. Threads are fibers that run one
// at a time and switch at every barrier, shuffle and matrix instruction, in an order chosen to
// expose races (threads.cpp, launch.cpp). Memory accesses are real: shared memory starts as NaN,
// and buffers end at guard pages.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define KINDLING_EMULATED 1
// The build script finds kernels by this expansion.
#define __global__ __attribute__((used))
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) int4 { int x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace emulator {

/// Position in the kernel's source where a thread waits.
struct Site { const char* file; int line; };

/// Bytes a lane can pass to its warp at once.
constexpr size_t LANE_BYTES = 64;

/// Waits for every thread of the block.
void block_barrier(Site site);
/// Waits until a counter that other blocks set has a value. Those blocks run meanwhile.
void wait_for_value(const int* counter, int value, Site site);
/// Sets such a counter. Except in forward order, other blocks run before this one continues.
void set_value(int* counter, int value);
/// Passes `size` bytes to the warp, waits for all 32 lanes, and returns the lanes' data, LANE_BYTES
/// apart.
const unsigned char* warp_exchange(const char* what, unsigned mask, const void* bytes, size_t size, Site site);
/// Returns the block's shared array for `key`, filled with NaN when the block starts.
void* shared_array(const void* key, size_t size);
/// Returns the block's dynamic shared memory.
unsigned char* dynamic_shared();
/// Starts an asynchronous copy, performed by `wait_copies` at the latest moment allowed.
void start_copy(void* to, const void* from, int bytes);
void commit_copies();
void wait_copies(int groups_left);
/// Ends the launch with an error.
[[noreturn]] void fail(const char* message, Site site);

template <class T, class Choose>
T from_lane(const char* what, unsigned mask, T value, Choose choose, Site site) {
    static_assert(sizeof(T) <= LANE_BYTES, "too large for a shuffle");
    const unsigned char* all = warp_exchange(what, mask, &value, sizeof(T), site);
    T result;
    std::memcpy(&result, all + choose(int(threadIdx.x % 32)) * LANE_BYTES, sizeof(T));
    return result;
}

}  // namespace emulator

/// Declares static and dynamic shared memory; kernels/elements.cuh has the CUDA versions.
#define SHARED_ARRAY(T, name, count) \
    static char name##_key;          \
    T(&name)[count] = *static_cast<T(*)[count]>(emulator::shared_array(&name##_key, sizeof(T) * (count)))
#define DYNAMIC_SHARED(name) unsigned char* name = emulator::dynamic_shared()

#define EMULATOR_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(EMULATOR_SITE) { emulator::block_barrier({file, line}); }
inline void __syncwarp(unsigned mask = 0xffffffffu, EMULATOR_SITE) {
    emulator::warp_exchange("__syncwarp", mask, nullptr, 0, {file, line});
}
template <class T> T __shfl_sync(unsigned mask, T value, int source, EMULATOR_SITE) {
    return emulator::from_lane("__shfl_sync", mask, value, [=](int) { return source & 31; }, {file, line});
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, EMULATOR_SITE) {
    return emulator::from_lane("__shfl_xor_sync", mask, value, [=](int lane) { return (lane ^ bits) & 31; },
                               {file, line});
}
template <class T> T __shfl_down_sync(unsigned mask, T value, int by, EMULATOR_SITE) {
    return emulator::from_lane("__shfl_down_sync", mask, value,
                               [=](int lane) { return lane + by < 32 ? lane + by : lane; }, {file, line});
}
template <class T> T __shfl_up_sync(unsigned mask, T value, int by, EMULATOR_SITE) {
    return emulator::from_lane("__shfl_up_sync", mask, value,
                               [=](int lane) { return lane >= by ? lane - by : lane; }, {file, line});
}
inline int __any_sync(unsigned mask, int predicate, EMULATOR_SITE) {
    const unsigned char* all = emulator::warp_exchange("__any_sync", mask, &predicate, sizeof(int), {file, line});
    int any = 0;
    for (int lane = 0; lane < 32; lane++) {
        int one;
        std::memcpy(&one, all + lane * emulator::LANE_BYTES, sizeof(int));
        any |= one;
    }
    return any != 0;
}

// Threads switch only at barriers, so a plain read and write is atomic.
template <class T> T atomicAdd(T* address, T value) {
    T old = *address;
    *address = old + value;
    return old;
}
template <class T> T atomicMax(T* address, T value) {
    T old = *address;
    if (value > old) *address = value;
    return old;
}
inline void __threadfence() {}

inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
template <class T> T __ldg(const T* address) { return *address; }
template <class T> T __ldcg(const T* address) { return *address; }
template <class T> void __stcg(T* address, T value) { *address = value; }
template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }
inline unsigned __float_as_uint(float x) { unsigned u; std::memcpy(&u, &x, 4); return u; }
inline float __uint_as_float(unsigned u) { float x; std::memcpy(&x, &u, 4); return x; }
