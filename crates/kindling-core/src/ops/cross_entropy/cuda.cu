// Cross-entropy of each row of logits. loss = lse - logit of the target, dlogits = (softmax - one
// at the target) scale. Rows with target -100 have loss 0 and gradient 0. logits, dlogits: (rows,
// vocab_size), rows `pitch` elements apart; targets, lse, losses: (rows).
// Grid: one block per row; block: up to 512 threads, 8 logits (16 bytes of bf16) at a time; shared:
// 64 floats. The second pass reads the row again, except in the kernels that keep it in registers.
// If the pitch is a multiple of 8, a row's last 8 logits are read and written at once, though some
// of them may lie past the end of the vocabulary.
#include "kernels/elements.cuh"
#include "kernels/reduce.cuh"

namespace {

constexpr int IGNORED_TARGET = -100;

/// Loads N logits from `at`; those past the vocabulary become -inf, whose exponential is 0.
template <int N, class T>
__device__ __forceinline__ void load_logits(float (&v)[N], const T* logits, int at, int vocab_size) {
    load<N>(v, logits + at);
    if (at + N > vocab_size) {
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = at + i < vocab_size ? v[i] : -INFINITY;
    }
}

/// Returns whether 8 logits at a time may be read and written in each row.
template <class T> __device__ __forceinline__ bool in_vectors(const T* logits, int pitch) {
    return pitch % 8 == 0 && is_aligned<8>(logits);
}

template <int N, class T> __device__ Exponentials row_exponentials(const T* logits, int vocab_size) {
    Exponentials e = {-INFINITY, 0.0f};
    for (int at = threadIdx.x * N; at < vocab_size; at += blockDim.x * N) {
        float v[N];
        load_logits<N>(v, logits, at, vocab_size);
        take_in<N>(e, v);
    }
    return e;
}

template <int N, class T>
__device__ void row_gradient(T* dlogits, const T* logits, float lse, int target, int vocab_size, float scale) {
    for (int at = threadIdx.x * N; at < vocab_size; at += blockDim.x * N) {
        float v[N];
        load_logits<N>(v, logits, at, vocab_size);
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float one = at + i == target ? 1.0f : 0.0f;
            v[i] = target == IGNORED_TARGET ? 0.0f : (__expf(v[i] - lse) - one) * scale;
        }
        store<N>(dlogits + at, v);
    }
}

template <class T>
__device__ void gradient(T* dlogits, const T* logits, float lse, int target, int vocab_size, int pitch, float scale) {
    if (in_vectors(dlogits, pitch) && in_vectors(logits, pitch))
        row_gradient<8>(dlogits, logits, lse, target, vocab_size, scale);
    else
        row_gradient<1>(dlogits, logits, lse, target, vocab_size, scale);
}

/// Returns the row's lse to all threads once all have read the row. Thread 0 writes the loss.
template <class T> __device__ float statistics(float* losses, const T* logits, int target, int vocab_size, int pitch) {
    SHARED_ARRAY(float, largest, 32);
    SHARED_ARRAY(float, sums, 32);
    // Read before block_merge's barriers: afterwards the row may be overwritten.
    const float score = target == IGNORED_TARGET ? 0.0f : to_float(logits[target]);
    Exponentials e = in_vectors(logits, pitch) ? row_exponentials<8>(logits, vocab_size)
                                               : row_exponentials<1>(logits, vocab_size);
    e = block_merge(e, largest, sums);
    const float log_sum = logf(e.sum);
    // Starting from the maximum loses no precision where log_sum is orders of magnitude smaller.
    if (threadIdx.x == 0) losses[blockIdx.x] = target == IGNORED_TARGET ? 0.0f : (e.largest - score) + log_sum;
    return e.largest + log_sum;
}

template <class T>
__device__ void forward(float* lse, float* losses, const T* logits, const int* targets, int vocab_size, int pitch) {
    const float row_lse =
        statistics(losses, logits + (long long)blockIdx.x * pitch, targets[blockIdx.x], vocab_size, pitch);
    if (threadIdx.x == 0) lse[blockIdx.x] = row_lse;
}

template <class T>
__device__ void forward_backward(T* logits, float* losses, const int* targets, int vocab_size, int pitch, float scale) {
    T* row = logits + (long long)blockIdx.x * pitch;
    const int target = targets[blockIdx.x];
    const float row_lse = statistics(losses, row, target, vocab_size, pitch);
    gradient(row, row, row_lse, target, vocab_size, pitch, scale);
}

/// The type of 16 bytes of logits in registers.
template <class T> struct Sixteen;
template <> struct Sixteen<bf16> { using Bytes = uint4; };
template <> struct Sixteen<float> { using Bytes = float4; };

/// Makes the words opaque to the compiler, so that it unpacks them again instead of keeping the
/// unpacked values in twice the registers.
#ifndef KINDLING_EMULATED
static __device__ __forceinline__ void forget(uint4& words) {
    asm volatile("" : "+r"(words.x), "+r"(words.y), "+r"(words.z), "+r"(words.w));
}
#else
static inline void forget(uint4&) {}
#endif
static __device__ __forceinline__ void forget(float4&) {}

/// Like `forward_backward`, with the row kept in registers between the two passes: V times 16 bytes
/// in each thread. Rows must be aligned to 16 bytes.
/// Grid: one block per row; block: up to 1024 threads, which together cover a row.
template <int V, class T>
__device__ void forward_backward_kept(T* logits, float* losses, const int* targets, int vocab_size, int pitch,
                                      float scale) {
    constexpr int N = 16 / sizeof(T);
    using Bytes = typename Sixteen<T>::Bytes;
    SHARED_ARRAY(float, largest, 32);
    SHARED_ARRAY(float, sums, 32);
    T* row = logits + (long long)blockIdx.x * pitch;
    const int target = targets[blockIdx.x];
    // Read before block_merge's barriers: afterwards the row may be overwritten.
    const float score = target == IGNORED_TARGET ? 0.0f : to_float(row[target]);
    Bytes kept[V];
    Exponentials e = {-INFINITY, 0.0f};
#pragma unroll
    for (int k = 0; k < V; k++) {
        const int at = (k * blockDim.x + threadIdx.x) * N;
        if (at < vocab_size) kept[k] = *reinterpret_cast<const Bytes*>(row + at);
    }
    // Logits past the vocabulary become -inf, whose exponential is 0.
#pragma unroll
    for (int k = 0; k < V; k++) {
        const int at = (k * blockDim.x + threadIdx.x) * N;
        float v[N];
        load<N>(v, reinterpret_cast<const T*>(&kept[k]));
        if (at + N > vocab_size) {
#pragma unroll
            for (int i = 0; i < N; i++) v[i] = at + i < vocab_size ? v[i] : -INFINITY;
            store<N>(reinterpret_cast<T*>(&kept[k]), v);
        }
#pragma unroll
        for (int i = 0; i < N; i++) e.largest = fmaxf(e.largest, v[i]);
        forget(kept[k]);
    }
    if (e.largest != -INFINITY) {
#pragma unroll
        for (int k = 0; k < V; k++) {
            float v[N];
            load<N>(v, reinterpret_cast<const T*>(&kept[k]));
#pragma unroll
            for (int i = 0; i < N; i++) e.sum += __expf(v[i] - e.largest);
            forget(kept[k]);
        }
    }
    e = block_merge(e, largest, sums);
    const float log_sum = logf(e.sum), lse = e.largest + log_sum;
    if (threadIdx.x == 0) losses[blockIdx.x] = target == IGNORED_TARGET ? 0.0f : (e.largest - score) + log_sum;
    if (target == IGNORED_TARGET) scale = 0.0f;
#pragma unroll
    for (int k = 0; k < V; k++) {
        const int at = (k * blockDim.x + threadIdx.x) * N;
        if (at >= vocab_size) continue;
        float v[N];
        load<N>(v, reinterpret_cast<const T*>(&kept[k]));
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = __expf(v[i] - lse);
        if (at <= target && target < at + N) {
#pragma unroll
            for (int i = 0; i < N; i++) v[i] -= at + i == target ? 1.0f : 0.0f;
        }
#pragma unroll
        for (int i = 0; i < N; i++) v[i] *= scale;
        store<N>(row + at, v);
    }
}

template <class T>
__device__ void backward(T* dlogits, const T* logits, const float* lse, const int* targets, int vocab_size, int pitch,
                         float scale) {
    const long long row = (long long)blockIdx.x * pitch;
    gradient(dlogits + row, logits + row, lse[blockIdx.x], targets[blockIdx.x], vocab_size, pitch, scale);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(512)
cross_entropy_forward_f32(float* lse, float* losses, const float* logits, const int* targets, int vocab_size,
                          int pitch) {
    forward(lse, losses, logits, targets, vocab_size, pitch);
}
extern "C" __global__ void __launch_bounds__(512)
cross_entropy_forward_bf16(float* lse, float* losses, const bf16* logits, const int* targets, int vocab_size,
                           int pitch) {
    forward(lse, losses, logits, targets, vocab_size, pitch);
}
extern "C" __global__ void __launch_bounds__(512)
cross_entropy_backward_f32(float* dlogits, const float* logits, const float* lse, const int* targets, int vocab_size,
                           int pitch, float scale) {
    backward(dlogits, logits, lse, targets, vocab_size, pitch, scale);
}
extern "C" __global__ void __launch_bounds__(512)
cross_entropy_backward_bf16(bf16* dlogits, const bf16* logits, const float* lse, const int* targets, int vocab_size,
                            int pitch, float scale) {
    backward(dlogits, logits, lse, targets, vocab_size, pitch, scale);
}
/// Computes the losses and replaces the logits by their gradient.
extern "C" __global__ void __launch_bounds__(512)
cross_entropy_forward_backward_f32(float* logits, float* losses, const int* targets, int vocab_size, int pitch,
                                   float scale) {
    forward_backward(logits, losses, targets, vocab_size, pitch, scale);
}
extern "C" __global__ void __launch_bounds__(512)
cross_entropy_forward_backward_bf16(bf16* logits, float* losses, const int* targets, int vocab_size, int pitch,
                                    float scale) {
    forward_backward(logits, losses, targets, vocab_size, pitch, scale);
}

#define FORWARD_BACKWARD_KEPT(name, T, V)                                                                    \
    extern "C" __global__ void __launch_bounds__(1024)                                                       \
    cross_entropy_forward_backward_kept_##name##_##V(T* logits, float* losses, const int* targets,           \
                                                     int vocab_size, int pitch, float scale) {               \
        forward_backward_kept<V>(logits, losses, targets, vocab_size, pitch, scale);                         \
    }
FORWARD_BACKWARD_KEPT(f32, float, 2)
FORWARD_BACKWARD_KEPT(f32, float, 4)
FORWARD_BACKWARD_KEPT(f32, float, 7)
FORWARD_BACKWARD_KEPT(bf16, bf16, 2)
FORWARD_BACKWARD_KEPT(bf16, bf16, 4)
FORWARD_BACKWARD_KEPT(bf16, bf16, 7)

/// *total += the sum of the losses, in f64. Grid: one block; block: 1024 threads; shared: 32
/// doubles.
extern "C" __global__ void __launch_bounds__(1024)
cross_entropy_add_losses(double* total, const float* losses, int rows) {
    SHARED_ARRAY(double, partial, 32);
    double sum = 0.0;
    for (int row = threadIdx.x; row < rows; row += blockDim.x) sum += losses[row];
    sum = block_sum(sum, partial);
    if (threadIdx.x == 0) *total += sum;
}
