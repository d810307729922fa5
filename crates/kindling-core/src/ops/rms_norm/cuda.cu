// RMSNorm. The forward pass has a warp per row, the backward pass a block per run of rows. The
// residual stream (x, sum, dx) has type S, the input and output of the sublayers (out, dout,
// residual) type T; gain, rstd and sums are f32. Rows are read once and stay in registers, in the
// forward pass up to 1024 columns.
#include "kernels/elements.cuh"
#include "kernels/columns.cuh"
#include "kernels/reduce.cuh"

namespace {

/// Vectors of a row that one lane holds in registers.
constexpr int KEPT = 8;

/// Computes out = norm(x), or sum = x + residual and out = norm(sum). rstd: (rows), saved.
template <int N, class S, class T>
__device__ void forward_row(T* out, S* sum, float* rstd, const S* x, const T* residual, const float* weight, int width,
                            float eps) {
    const int lane = threadIdx.x % 32;
    float kept[KEPT][N], squares = 0.0f;
    auto read = [&](float(&v)[N], int at) {
        load<N>(v, x + at);
        if (residual) {
            float r[N];
            load<N>(r, residual + at);
#pragma unroll
            for (int i = 0; i < N; i++) v[i] += r[i];
        }
    };
    auto take_in = [&](const float(&v)[N], int at) {
#pragma unroll
        for (int i = 0; i < N; i++) squares += v[i] * v[i];
        if (residual) store<N>(sum + at, v);
    };
    // Issue all loads of the row before the first store, which would stall those behind it.
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const int at = (k * 32 + lane) * N;
        if (at < width) read(kept[k], at);
    }
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const int at = (k * 32 + lane) * N;
        if (at < width) take_in(kept[k], at);
    }
    for (int at = (KEPT * 32 + lane) * N; at < width; at += 32 * N) {
        float v[N];
        read(v, at);
        take_in(v, at);
    }
    const float scale = 1.0f / sqrtf(warp_sum(squares) / width + eps);
    if (lane == 0) *rstd = scale;
    auto write = [&](float(&v)[N], int at) {
        float w[N];
        load<N>(w, weight + at);
#pragma unroll
        for (int i = 0; i < N; i++) v[i] *= scale * w[i];
        store<N>(out + at, v);
    };
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const int at = (k * 32 + lane) * N;
        if (at < width) write(kept[k], at);
    }
    for (int at = (KEPT * 32 + lane) * N; at < width; at += 32 * N) {
        float v[N];
        load<N>(v, (residual ? sum : x) + at);
        write(v, at);
    }
}

/// Runs `forward_row` for each row. sum and residual: both null or neither.
/// Grid: rows / 8, rounded up; block: 256 threads; no shared memory.
template <class S, class T>
__device__ void forward(T* out, S* sum, float* rstd, const S* x, const T* residual, const float* weight, int rows,
                        int width, float eps) {
    const long long row = blockIdx.x * 8ll + threadIdx.x / 32;
    if (row >= rows) return;
    const bool vectors = width % 4 == 0 && is_aligned<4>(out) && is_aligned<4>(sum) && is_aligned<4>(x) &&
                         is_aligned<4>(residual) && is_aligned<4>(weight);
    const long long at = row * width;
    S* sum_row = residual ? sum + at : nullptr;
    const T* residual_row = residual ? residual + at : nullptr;
    if (vectors) forward_row<4>(out + at, sum_row, rstd + row, x + at, residual_row, weight, width, eps);
    else forward_row<1>(out + at, sum_row, rstd + row, x + at, residual_row, weight, width, eps);
}

/// Rows that a block has in flight at once, if its registers hold that many.
#ifndef NORM_BACKWARD_ROWS
#define NORM_BACKWARD_ROWS 4
#endif

/// Computes dx = (dx +) rstd (weight dout - x rstd^2 mean(weight dout x)) and partial (blocks,
/// width), each block's sum of dout x rstd over its run of rows. add: adds to dx instead of
/// overwriting it. rounded: dx in T; normed: x rstd weight as the forward pass computed it; each
/// may be null.
///
/// A thread has the same V N columns in all rows, so that its part of the sum stays in registers.
/// All loads of a round of rows are issued before the barrier that their sums need.
/// Grid: any number of blocks; block: up to 384 threads, which together cover a row; shared: 64
/// floats for each row of a round.
template <int V, int N, class S, class T>
__device__ void backward(S* dx, T* rounded, T* normed, float* partial, const T* dout, const S* x, const float* weight,
                         const float* rstd, int rows, int width, int add) {
    constexpr int R = NORM_BACKWARD_ROWS / V > 0 ? NORM_BACKWARD_ROWS / V : 1;
    // Long rows leave no registers for the gain and the old dx.
    constexpr bool LONG = V > 4;
    SHARED_ARRAY(float, shared, 2 * 32 * R);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    auto column = [&](int k) { return (k * int(blockDim.x) + int(threadIdx.x)) * N; };
    float gain[V][N], dgain[V][N] = {};
#pragma unroll
    for (int k = 0; k < V; k++)
        if (!LONG && column(k) < width) load<N>(gain[k], weight + column(k));
    const long long end = (long long)rows * (blockIdx.x + 1) / gridDim.x;
    int half = 0;
    for (long long row = (long long)rows * blockIdx.x / gridDim.x; row < end; row += R, half ^= 1) {
        float v[R][V][N], d[R][V][N], old[R][V][N], scale[R], dot[R] = {};
#pragma unroll
        for (int r = 0; r < R; r++) {
            scale[r] = row + r < end ? rstd[row + r] : 0.0f;
#pragma unroll
            for (int k = 0; k < V; k++) {
                const long long at = (row + r) * width + column(k);
                if (column(k) >= width || row + r >= end) continue;
                load<N>(v[r][k], x + at);
                load<N>(d[r][k], dout + at);
                if (!LONG && add) load<N>(old[r][k], dx + at);
            }
        }
#pragma unroll
        for (int r = 0; r < R; r++) {
#pragma unroll
            for (int k = 0; k < V; k++) {
                if (column(k) >= width || row + r >= end) continue;
                if (LONG) load<N>(gain[k], weight + column(k));
#pragma unroll
                for (int i = 0; i < N; i++) {
                    dgain[k][i] += d[r][k][i] * v[r][k][i] * scale[r];
                    d[r][k][i] *= gain[k][i];
                    dot[r] += d[r][k][i] * v[r][k][i];
                }
            }
            dot[r] = warp_sum(dot[r]);
        }
        // Other warps may still be reading the other half, of the round before.
        float* sums = shared + half * 32 * R;
        if (lane == 0) store<R>(sums + warp * R, dot);
        __syncthreads();
        float total[R] = {};
        for (int w = 0; w < warps; w++) {
            load<R>(dot, sums + w * R);
#pragma unroll
            for (int r = 0; r < R; r++) total[r] += dot[r];
        }
#pragma unroll
        for (int r = 0; r < R; r++) {
            const float correction = -scale[r] * scale[r] * scale[r] * total[r] / width;
#pragma unroll
            for (int k = 0; k < V; k++) {
                const long long at = (row + r) * width + column(k);
                if (column(k) >= width || row + r >= end) continue;
                if (LONG) load<N>(gain[k], weight + column(k));
                if (LONG && add) load<N>(old[r][k], dx + at);
#pragma unroll
                for (int i = 0; i < N; i++) {
                    d[r][k][i] = d[r][k][i] * scale[r] + v[r][k][i] * correction + (add ? old[r][k][i] : 0.0f);
                    v[r][k][i] *= scale[r] * gain[k][i];
                }
                store<N>(dx + at, d[r][k]);
                if (rounded) store<N>(rounded + at, d[r][k]);
                if (normed) store<N>(normed + at, v[r][k]);
            }
        }
    }
#pragma unroll
    for (int k = 0; k < V; k++)
        if (column(k) < width) store<N>(partial + (long long)blockIdx.x * width + column(k), dgain[k]);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
rms_norm_forward_f32(float* out, float* sum, float* rstd, const float* x, const float* residual, const float* weight,
                     int rows, int width, float eps) {
    forward(out, sum, rstd, x, residual, weight, rows, width, eps);
}
extern "C" __global__ void __launch_bounds__(256)
rms_norm_forward_bf16(bf16* out, float* sum, float* rstd, const float* x, const bf16* residual, const float* weight,
                      int rows, int width, float eps) {
    forward(out, sum, rstd, x, residual, weight, rows, width, eps);
}

#define BACKWARD(name, T, V, N, threads)                                                                     \
    extern "C" __global__ void __launch_bounds__(threads)                                                    \
    rms_norm_backward_##name##_##V(float* dx, T* rounded, T* normed, float* partial, const T* dout,          \
                                   const float* x, const float* weight, const float* rstd, int rows,         \
                                   int width, int add) {                                                     \
        backward<V, N>(dx, rounded, normed, partial, dout, x, weight, rstd, rows, width, add);               \
    }
BACKWARD(f32, float, 1, 4, 256)
BACKWARD(f32, float, 2, 4, 256)
BACKWARD(f32, float, 4, 4, 256)
BACKWARD(f32, float, 8, 4, 384)
BACKWARD(bf16, bf16, 1, 4, 256)
BACKWARD(bf16, bf16, 2, 4, 256)
BACKWARD(bf16, bf16, 4, 4, 256)
BACKWARD(bf16, bf16, 8, 4, 384)
BACKWARD(f32_unaligned, float, 16, 1, 256)
BACKWARD(bf16_unaligned, bf16, 16, 1, 256)

/// dweight += the partial sums. Grid: width / 32, rounded up; block: 256 threads.
extern "C" __global__ void __launch_bounds__(256)
rms_norm_add_partial(float* dweight, const float* partial, int blocks, int width) {
    add_rows(dweight, partial, blocks, width);
}
