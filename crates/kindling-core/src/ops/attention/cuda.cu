// Causal attention: forward and backward kernels for each dtype and head size (rounded up to 32,
// 64, 96 or 128), delta, and decoding, which is one query against a cache.
// qkv, dqkv: (b t, (nh + 2 nkv) hs); out, dout: (b t, nh hs); lse, delta: (b, nh, t) f32; cos,
// sin: (positions, hs) f32 or null.
#include "attention/hopper_backward_128.cuh"
#include "attention/hopper_forward_128.cuh"
#include "attention/plain.cuh"
#include "attention/tensor_backward.cuh"
#include "attention/tensor_backward_joint.cuh"
#include "attention/tensor_forward.cuh"
#include "kernels/reduce.cuh"

namespace {

/// Returns the lanes per head of a row, a power of two: 8 elements each where alignment allows.
__device__ __forceinline__ int delta_lanes(int head_size) { return head_size <= 32 ? 4 : head_size <= 64 ? 8 : 16; }

/// delta[b, head, position] = sum over the head of dout out. rows: b t. `delta_lanes` lanes per
/// head of a row.
template <class T>
__device__ void row_deltas(float* delta, const T* dout, const T* out, int rows, int positions, int num_heads, int head_size) {
    const int lanes = delta_lanes(head_size), lane = threadIdx.x % lanes;
    const long long pair = (blockIdx.x * 256ll + threadIdx.x) / lanes;
    const bool inside = pair < (long long)rows * num_heads;
    const long long at = inside ? pair * head_size : 0;
    float sum = 0.0f;
    if (inside && head_size % 8 == 0 && is_aligned<8>(dout) && is_aligned<8>(out)) {
        if (8 * lane < head_size) {
            float d[8], o[8];
            load<8>(d, dout + at + 8 * lane);
            load<8>(o, out + at + 8 * lane);
#pragma unroll
            for (int i = 0; i < 8; i++) sum += d[i] * o[i];
        }
    } else if (inside) {
        for (int i = lane; i < head_size; i += lanes) sum += to_float(dout[at + i]) * to_float(out[at + i]);
    }
#pragma unroll
    for (int bits = 8; bits > 0; bits /= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, sum, bits);
        if (bits < lanes) sum += other;
    }
    if (!inside || lane != 0) return;
    const int row = int(pair / num_heads), head = int(pair % num_heads);
    delta[((long long)(row / positions) * num_heads + head) * positions + row % positions] = sum;
}

/// Computes attention of one query to `length` keys and values. q, out: (nh hs); keys, values:
/// (length, nkv hs).
/// Grid: nh; block: 256, each warp takes every eighth key, with the head spread over its lanes;
/// shared: 8 partial results.
template <class T>
__device__ void decode(T* out, const T* q, const T* keys, const T* values, int length, int num_heads, int num_kv_heads,
                       int head_size) {
    SHARED_ARRAY(float, parts, 8 * 128);
    SHARED_ARRAY(float, largests, 8);
    SHARED_ARRAY(float, totals, 8);
    const int head = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int width = num_kv_heads * head_size, column = head / (num_heads / num_kv_heads) * head_size;
    const float scale = 1.0f / sqrtf((float)head_size);
    float query[4], sums[4] = {}, largest = -INFINITY, total = 0.0f;
#pragma unroll
    for (int i = 0; i < 4; i++)
        query[i] = lane + 32 * i < head_size ? to_float(q[head * head_size + lane + 32 * i]) * scale : 0.0f;
    for (int position = warp; position < length; position += 8) {
        const long long at = (long long)position * width + column;
        float score = 0.0f;
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (lane + 32 * i < head_size) score += query[i] * to_float(keys[at + lane + 32 * i]);
        score = warp_sum(score);
        const float most = fmaxf(largest, score), factor = __expf(largest - most), weight = __expf(score - most);
        largest = most;
        total = total * factor + weight;
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (lane + 32 * i < head_size) sums[i] = sums[i] * factor + weight * to_float(values[at + lane + 32 * i]);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) parts[warp * 128 + lane + 32 * i] = sums[i];
    if (lane == 0) {
        largests[warp] = largest;
        totals[warp] = total;
    }
    __syncthreads();
    float most = -INFINITY, all = 0.0f, sum = 0.0f;
    for (int part = 0; part < 8; part++) most = fmaxf(most, largests[part]);
    for (int part = 0; part < 8; part++) {
        const float weight = __expf(largests[part] - most);
        all += totals[part] * weight;
        if (int(threadIdx.x) < head_size) sum += parts[part * 128 + threadIdx.x] * weight;
    }
    if (int(threadIdx.x) < head_size) out[head * head_size + threadIdx.x] = from_float<T>(sum / all);
}

}  // namespace

#define LAYOUT {positions, num_heads, num_kv_heads, head_size, aligned != 0}
#define ROTATION {cos, sin}

#define PLAIN_KERNELS(W)                                                                                               \
    extern "C" __global__ void __launch_bounds__(128)                                                                  \
    attention_forward_f32_##W(float* out, float* lse, const float* qkv, int positions, int num_heads,                  \
                              int num_kv_heads, int head_size, int aligned) {                                          \
        plain_forward<W>(out, lse, qkv, LAYOUT);                                                                       \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(128)                                                                  \
    attention_backward_kv_f32_##W(float* dqkv, const float* dout, const float* qkv, const float* lse,                  \
                                  const float* delta, const float* cos, const float* sin, int positions,               \
                                  int num_heads, int num_kv_heads, int head_size, int aligned) {                       \
        plain_backward_kv<W>(dqkv, dout, qkv, lse, delta, ROTATION, LAYOUT);                                           \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(128)                                                                  \
    attention_backward_q_f32_##W(float* dqkv, const float* dout, const float* qkv, const float* lse,                   \
                                 const float* delta, const float* cos, const float* sin, int positions,                \
                                 int num_heads, int num_kv_heads, int head_size, int aligned) {                        \
        plain_backward_q<W>(dqkv, dout, qkv, lse, delta, ROTATION, LAYOUT);                                            \
    }

// Sizes of the kernels for each head size. -D overrides them, to time others; attention/cuda.rs
// repeats M and N. M: rows per warp in units of 16; N: rows staged in shared memory at a time, C of
// them in registers. Chosen so that a matrix in registers serves two products without register
// spills (ptxas -v).
// FORWARD: M, N, whether queries stay in registers, blocks that fit an SM. KV, Q: M, N, C. BACKWARD:
// warps, M, N, C, blocks that fit an SM. N of 32 lets an A100 hold two blocks.
#ifndef KINDLING_ATTENTION_FORWARD_32
#define KINDLING_ATTENTION_FORWARD_32 2, 64, 1, 2
#endif
#ifndef KINDLING_ATTENTION_FORWARD_64
#define KINDLING_ATTENTION_FORWARD_64 2, 64, 1, 2
#endif
#ifndef KINDLING_ATTENTION_FORWARD_96
#define KINDLING_ATTENTION_FORWARD_96 1, 64, 1, 2
#endif
#ifndef KINDLING_ATTENTION_FORWARD_128
#define KINDLING_ATTENTION_FORWARD_128 1, 64, 1, 2
#endif
#ifndef KINDLING_ATTENTION_KV_32
#define KINDLING_ATTENTION_KV_32 2, 64, 32
#endif
#ifndef KINDLING_ATTENTION_KV_64
#define KINDLING_ATTENTION_KV_64 1, 64, 64
#endif
#ifndef KINDLING_ATTENTION_KV_96
#define KINDLING_ATTENTION_KV_96 1, 64, 32
#endif
#ifndef KINDLING_ATTENTION_KV_128
#define KINDLING_ATTENTION_KV_128 1, 32, 32
#endif
#ifndef KINDLING_ATTENTION_Q_32
#define KINDLING_ATTENTION_Q_32 2, 64, 64
#endif
#ifndef KINDLING_ATTENTION_Q_64
#define KINDLING_ATTENTION_Q_64 2, 64, 32
#endif
#ifndef KINDLING_ATTENTION_Q_96
#define KINDLING_ATTENTION_Q_96 1, 64, 64
#endif
#ifndef KINDLING_ATTENTION_Q_128
#define KINDLING_ATTENTION_Q_128 1, 64, 64
#endif
#ifndef KINDLING_ATTENTION_BACKWARD_32
#define KINDLING_ATTENTION_BACKWARD_32 4, 2, 64, 32, 2
#endif
#ifndef KINDLING_ATTENTION_BACKWARD_64
#define KINDLING_ATTENTION_BACKWARD_64 4, 2, 32, 32, 2
#endif
#ifndef KINDLING_ATTENTION_BACKWARD_96
#define KINDLING_ATTENTION_BACKWARD_96 4, 1, 32, 32, 2
#endif
#ifndef KINDLING_ATTENTION_BACKWARD_128
#define KINDLING_ATTENTION_BACKWARD_128 4, 1, 32, 32, 2
#endif

#define FORWARD_KERNEL(W, ...) FORWARD_KERNEL_OF_SIZES(W, __VA_ARGS__)
#define FORWARD_KERNEL_OF_SIZES(W, M, N, KEPT, BLOCKS)                                                                 \
    extern "C" __global__ void __launch_bounds__(128, BLOCKS)                                                          \
    attention_forward_bf16_##W(bf16* out, float* lse, const bf16* qkv, int positions, int num_heads,                   \
                               int num_kv_heads, int head_size, int aligned) {                                         \
        tensor_forward<W, M, N, KEPT>(out, lse, qkv, LAYOUT);                                                          \
    }
#define KV_KERNEL(W, ...)                                                                                              \
    extern "C" __global__ void __launch_bounds__(128)                                                                  \
    attention_backward_kv_bf16_##W(bf16* dqkv, const bf16* dout, const bf16* qkv, const float* lse,                    \
                                   const float* delta, const float* cos, const float* sin, int positions,              \
                                   int num_heads, int num_kv_heads, int head_size, int aligned) {                      \
        tensor_backward_kv<W, __VA_ARGS__>(dqkv, dout, qkv, lse, delta, ROTATION, LAYOUT);                             \
    }
#define Q_KERNEL(W, ...)                                                                                               \
    extern "C" __global__ void __launch_bounds__(128)                                                                  \
    attention_backward_q_bf16_##W(bf16* dqkv, const bf16* dout, const bf16* qkv, const float* lse,                     \
                                  const float* delta, const float* cos, const float* sin, int positions,               \
                                  int num_heads, int num_kv_heads, int head_size, int aligned) {                       \
        tensor_backward_q<W, __VA_ARGS__>(dqkv, dout, qkv, lse, delta, ROTATION, LAYOUT);                              \
    }
#define JOINT_KERNEL(W, ...) JOINT_KERNEL_OF_SIZES(W, __VA_ARGS__)
#define JOINT_KERNEL_OF_SIZES(W, BLOCK_WARPS, M, N, C, BLOCKS)                                                         \
    extern "C" __global__ void __launch_bounds__(32 * BLOCK_WARPS, BLOCKS)                                             \
    attention_backward_bf16_##W(bf16* dqkv, float* dq, int* turns, const bf16* dout, const bf16* qkv, const float* lse,\
                                const float* delta, const float* cos, const float* sin, int positions, int num_heads,  \
                                int num_kv_heads, int head_size, int aligned) {                                        \
        tensor_backward_joint<W, BLOCK_WARPS, M, N, C>(dqkv, dq, turns, dout, qkv, lse, delta, ROTATION, LAYOUT);      \
    }
#define TENSOR_KERNELS(W)                                                                                              \
    FORWARD_KERNEL(W, KINDLING_ATTENTION_FORWARD_##W)                                                                  \
    KV_KERNEL(W, KINDLING_ATTENTION_KV_##W)                                                                            \
    Q_KERNEL(W, KINDLING_ATTENTION_Q_##W)                                                                              \
    JOINT_KERNEL(W, KINDLING_ATTENTION_BACKWARD_##W)

PLAIN_KERNELS(32)
PLAIN_KERNELS(64)
PLAIN_KERNELS(96)
PLAIN_KERNELS(128)
TENSOR_KERNELS(32)
TENSOR_KERNELS(64)
TENSOR_KERNELS(96)
TENSOR_KERNELS(128)

// Empty on other architectures, which never launch these kernels.
#ifdef WARPGROUP_PRODUCTS
#define ON_HOPPER(call) call
#else
#define ON_HOPPER(call)
#endif
#define HEADS(W) {positions, num_heads, num_kv_heads, W, true}

// For each kernel, threads per block and blocks that fit an SM.
#define HOPPER_KERNELS(W, FORWARD_THREADS, FORWARD_BLOCKS, Q_THREADS, Q_BLOCKS, KV_THREADS, KV_BLOCKS)                 \
    extern "C" __global__ void __launch_bounds__(FORWARD_THREADS, FORWARD_BLOCKS)                                      \
    attention_forward_hopper_##W(bf16* out, float* lse, const bf16* qkv, int positions, int num_heads,                 \
                                 int num_kv_heads) {                                                                   \
        ON_HOPPER(hopper_forward_##W(out, lse, qkv, HEADS(W)));                                                        \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(Q_THREADS, Q_BLOCKS)                                                  \
    attention_backward_q_hopper_##W(bf16* dqkv, float* delta, const bf16* dout, const bf16* qkv, const bf16* out,      \
                                    const float* lse, const float* cos, const float* sin, int positions,               \
                                    int num_heads, int num_kv_heads) {                                                 \
        ON_HOPPER(hopper_backward_q_##W(dqkv, delta, dout, qkv, out, lse, ROTATION, HEADS(W)));                        \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(KV_THREADS, KV_BLOCKS)                                                \
    attention_backward_kv_hopper_##W(bf16* dqkv, const float* delta, const bf16* dout, const bf16* qkv,                \
                                     const float* lse, const float* cos, const float* sin, int positions,              \
                                     int num_heads, int num_kv_heads) {                                                \
        ON_HOPPER(hopper_backward_kv_##W(dqkv, delta, dout, qkv, lse, ROTATION, HEADS(W)));                            \
    }

HOPPER_KERNELS(64, 256, 2, 128, 4, 128, 3)
HOPPER_KERNELS(128, 384, 1, 384, 1, 256, 1)

/// Grid: b t nh `delta_lanes` / 256, rounded up; block: 256; no shared memory.
extern "C" __global__ void __launch_bounds__(256)
attention_delta_f32(float* delta, const float* dout, const float* out, int rows, int positions, int num_heads, int head_size) {
    row_deltas(delta, dout, out, rows, positions, num_heads, head_size);
}
extern "C" __global__ void __launch_bounds__(256)
attention_delta_bf16(float* delta, const bf16* dout, const bf16* out, int rows, int positions, int num_heads, int head_size) {
    row_deltas(delta, dout, out, rows, positions, num_heads, head_size);
}
extern "C" __global__ void __launch_bounds__(256)
attention_decode_f32(float* out, const float* q, const float* keys, const float* values, int length, int num_heads,
                     int num_kv_heads, int head_size) {
    decode(out, q, keys, values, length, num_heads, num_kv_heads, head_size);
}
extern "C" __global__ void __launch_bounds__(256)
attention_decode_bf16(bf16* out, const bf16* q, const bf16* keys, const bf16* values, int length, int num_heads,
                      int num_kv_heads, int head_size) {
    decode(out, q, keys, values, length, num_heads, num_kv_heads, head_size);
}
