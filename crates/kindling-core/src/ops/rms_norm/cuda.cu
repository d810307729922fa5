// RMSNorm, one warp per row. The residual stream (x, sum, dx) has type S, the input and output of
// the sublayers (out, dout, residual) type T; gain, rstd and sums are f32. Rows up to 1024 wide are
// read once and stay in registers.
#include "kernels/elements.cuh"
#include "kernels/columns.cuh"
#include "kernels/reduce.cuh"

namespace {

/// Vectors of a row that one lane holds in registers.
constexpr int KEPT = 8;

/// out = norm(x), or sum = x + residual and out = norm(sum). rstd: (rows), saved.
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

/// Grid: rows / 8, rounded up; block: 256 threads; no shared memory. sum and residual: both null or
/// neither.
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

/// out = x rstd weight of one row, with the rstd of a forward pass.
template <int N, class S, class T>
__device__ void row_recompute(T* out, const S* x, const float* weight, float rstd, int width) {
    for (int at = threadIdx.x * N; at < width; at += blockDim.x * N) {
        float v[N], w[N];
        load<N>(v, x + at);
        load<N>(w, weight + at);
#pragma unroll
        for (int i = 0; i < N; i++) v[i] *= rstd * w[i];
        store<N>(out + at, v);
    }
}

/// Grid: one block per row; block: up to 256 threads, 4 elements each at a time; no shared memory.
template <class S, class T> __device__ void recompute(T* out, const S* x, const float* weight, const float* rstd, int width) {
    const long long at = (long long)blockIdx.x * width;
    if (width % 4 == 0 && is_aligned<4>(out) && is_aligned<4>(x) && is_aligned<4>(weight))
        row_recompute<4>(out + at, x + at, weight, rstd[blockIdx.x], width);
    else
        row_recompute<1>(out + at, x + at, weight, rstd[blockIdx.x], width);
}

/// dx = (dx +) rstd (weight dout - x rstd^2 mean(weight dout x)) of one row. dgain[column] += dout
/// x rstd in the warp's own shared memory, where each lane owns its columns.
template <int N, class S, class T>
__device__ void backward_row(S* dx, float* dgain, const T* dout, const S* x, const float* weight, float rstd, int width,
                             int add) {
    const int lane = threadIdx.x % 32;
    float kept_x[KEPT][N], kept_d[KEPT][N], dot = 0.0f;
    auto read = [&](float(&v)[N], float(&d)[N], int at) {
        load<N>(v, x + at);
        load<N>(d, dout + at);
    };
    // Leaves dout weight in d.
    auto take_in = [&](const float(&v)[N], float(&d)[N], int at) {
        float w[N], g[N];
        load<N>(w, weight + at);
        load<N>(g, dgain + at);
#pragma unroll
        for (int i = 0; i < N; i++) {
            g[i] += d[i] * v[i] * rstd;
            d[i] *= w[i];
            dot += d[i] * v[i];
        }
        store<N>(dgain + at, g);
    };
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const int at = (k * 32 + lane) * N;
        if (at < width) read(kept_x[k], kept_d[k], at);
    }
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const int at = (k * 32 + lane) * N;
        if (at < width) take_in(kept_x[k], kept_d[k], at);
    }
    for (int at = (KEPT * 32 + lane) * N; at < width; at += 32 * N) {
        float v[N], d[N];
        read(v, d, at);
        take_in(v, d, at);
    }
    const float correction = -rstd * rstd * rstd * warp_sum(dot) / width;
    auto write = [&](const float(&v)[N], const float(&d)[N], int at) {
        float r[N];
        if (add) load<N>(r, dx + at);
#pragma unroll
        for (int i = 0; i < N; i++) r[i] = d[i] * rstd + v[i] * correction + (add ? r[i] : 0.0f);
        store<N>(dx + at, r);
    };
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const int at = (k * 32 + lane) * N;
        if (at < width) write(kept_x[k], kept_d[k], at);
    }
    for (int at = (KEPT * 32 + lane) * N; at < width; at += 32 * N) {
        float v[N], d[N], w[N];
        read(v, d, at);
        load<N>(w, weight + at);
#pragma unroll
        for (int i = 0; i < N; i++) d[i] *= w[i];
        write(v, d, at);
    }
}

/// partial (blocks, width): each block's sum of dout x rstd over its run of rows. add: adds to dx
/// instead of overwriting it.
/// Grid: any number of blocks; block: any number of warps; shared: 4 width bytes per warp.
template <class S, class T>
__device__ void backward(S* dx, float* partial, const T* dout, const S* x, const float* weight, const float* rstd, int rows,
                         int width, int add) {
    DYNAMIC_SHARED(shared);
    float* dgain = reinterpret_cast<float*>(shared);
    const int warps = blockDim.x / 32, warp = threadIdx.x / 32;
    for (int at = threadIdx.x; at < warps * width; at += blockDim.x) dgain[at] = 0.0f;
    __syncthreads();
    const bool vectors = width % 4 == 0 && is_aligned<4>(dx) && is_aligned<4>(dout) && is_aligned<4>(x) &&
                         is_aligned<4>(weight);
    const long long end = (long long)rows * (blockIdx.x + 1) / gridDim.x;
    for (long long row = (long long)rows * blockIdx.x / gridDim.x + warp; row < end; row += warps) {
        const long long at = row * width;
        float* own = dgain + warp * width;
        if (vectors) backward_row<4>(dx + at, own, dout + at, x + at, weight, rstd[row], width, add);
        else backward_row<1>(dx + at, own, dout + at, x + at, weight, rstd[row], width, add);
    }
    __syncthreads();
    for (int column = threadIdx.x; column < width; column += blockDim.x) {
        float sum = 0.0f;
        for (int w = 0; w < warps; w++) sum += dgain[w * width + column];
        partial[(long long)blockIdx.x * width + column] = sum;
    }
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
extern "C" __global__ void __launch_bounds__(256)
rms_norm_recompute_f32(float* out, const float* x, const float* weight, const float* rstd, int width) {
    recompute(out, x, weight, rstd, width);
}
extern "C" __global__ void __launch_bounds__(256)
rms_norm_recompute_bf16(bf16* out, const float* x, const float* weight, const float* rstd, int width) {
    recompute(out, x, weight, rstd, width);
}
extern "C" __global__ void __launch_bounds__(256, 1)
rms_norm_backward_f32(float* dx, float* partial, const float* dout, const float* x, const float* weight, const float* rstd,
                      int rows, int width, int add) {
    backward(dx, partial, dout, x, weight, rstd, rows, width, add);
}
extern "C" __global__ void __launch_bounds__(256, 1)
rms_norm_backward_bf16(float* dx, float* partial, const bf16* dout, const float* x, const float* weight, const float* rstd,
                       int rows, int width, int add) {
    backward(dx, partial, dout, x, weight, rstd, rows, width, add);
}
/// dweight += the partial sums. Grid: width / 32, rounded up; block: 256 threads.
extern "C" __global__ void __launch_bounds__(256)
rms_norm_add_partial(float* dweight, const float* partial, int blocks, int width) {
    add_rows(dweight, partial, blocks, width);
}
