// RMSNorm over the query and key heads of q | k | v rows, in place. x, dx: (rows, row_width); saved:
// (rows, (q_heads + k_heads) head_size), the heads before the norm; weight: (2, head_size) f32, the
// gain of queries, then that of keys. A warp handles one head at a time, in registers.
#include "kernels/elements.cuh"
#include "kernels/columns.cuh"
#include "kernels/reduce.cuh"

namespace {

constexpr int MAX_HEAD_SIZE = 128;
/// Elements of a head that one lane holds: lane, lane + 32, ...
constexpr int KEPT = MAX_HEAD_SIZE / 32;
constexpr int WARPS = 8;

/// Reads a head's elements, and zeros past its end.
template <class T> __device__ void read_head(float (&v)[KEPT], const T* head, int lane, int head_size) {
#pragma unroll
    for (int k = 0; k < KEPT; k++) v[k] = k * 32 + lane < head_size ? to_float(head[k * 32 + lane]) : 0.0f;
}

/// Returns 1 / sqrt(mean(v^2) + eps) to all lanes.
static __device__ float inverse_rms(const float (&v)[KEPT], int head_size, float eps) {
    float squares = 0.0f;
#pragma unroll
    for (int k = 0; k < KEPT; k++) squares += v[k] * v[k];
    return 1.0f / sqrtf(warp_sum(squares) / head_size + eps);
}

/// Norms x in place, after copying the heads to saved unless it is null.
/// Grid: rows (q_heads + k_heads) / 8, rounded up; block: 256 threads; no shared memory.
template <class T>
__device__ void forward(T* x, T* saved, const float* weight, int rows, int row_width, int q_heads, int k_heads,
                        int head_size, float eps) {
    const int lane = threadIdx.x % 32, heads = q_heads + k_heads;
    const long long item = blockIdx.x * (long long)WARPS + threadIdx.x / 32;
    if (item >= (long long)rows * heads) return;
    const int index = int(item % heads);
    T* head = x + item / heads * row_width + index * head_size;
    const float* gain = weight + (index < q_heads ? 0 : head_size);
    float v[KEPT];
    read_head(v, head, lane, head_size);
    const float rstd = inverse_rms(v, head_size, eps);
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const int at = k * 32 + lane;
        if (at >= head_size) continue;
        if (saved) saved[item * head_size + at] = from_float<T>(v[k]);
        head[at] = from_float<T>(v[k] * rstd * gain[at]);
    }
}

/// Replaces dx. partial (gridDim.x, 2, head_size): each block's sums of dout x rstd over its query
/// heads, then over its key heads. Grid: any number of blocks; block: 256 threads; shared: 8 KiB.
template <class T>
__device__ void backward(T* dx, float* partial, const T* saved, const float* weight, int rows, int row_width,
                         int q_heads, int k_heads, int head_size, float eps) {
    SHARED_ARRAY(float, sums, WARPS * 2 * MAX_HEAD_SIZE);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, heads = q_heads + k_heads;
    const long long items = (long long)rows * heads, end = items * (blockIdx.x + 1) / gridDim.x;
    float dq[KEPT] = {}, dk[KEPT] = {};
    for (long long item = items * blockIdx.x / gridDim.x + warp; item < end; item += WARPS) {
        const int index = int(item % heads);
        const bool is_query = index < q_heads;
        T* head = dx + item / heads * row_width + index * head_size;
        float v[KEPT], d[KEPT], dot = 0.0f;
        read_head(v, saved + item * head_size, lane, head_size);
        read_head(d, head, lane, head_size);
        const float rstd = inverse_rms(v, head_size, eps);
#pragma unroll
        for (int k = 0; k < KEPT; k++) {
            const int at = k * 32 + lane;
            if (at >= head_size) continue;
            const float dgain = d[k] * v[k] * rstd;
            dq[k] += is_query ? dgain : 0.0f;
            dk[k] += is_query ? 0.0f : dgain;
            d[k] *= weight[(is_query ? 0 : head_size) + at];
            dot += d[k] * v[k];
        }
        const float correction = -rstd * rstd * rstd * warp_sum(dot) / head_size;
#pragma unroll
        for (int k = 0; k < KEPT; k++)
            if (k * 32 + lane < head_size) head[k * 32 + lane] = from_float<T>(d[k] * rstd + v[k] * correction);
    }
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const int at = k * 32 + lane;
        sums[warp * 2 * MAX_HEAD_SIZE + at] = dq[k];
        sums[(warp * 2 + 1) * MAX_HEAD_SIZE + at] = dk[k];
    }
    __syncthreads();
    for (int at = threadIdx.x; at < 2 * head_size; at += blockDim.x) {
        const int column = at < head_size ? at : MAX_HEAD_SIZE + at - head_size;
        float sum = 0.0f;
        for (int w = 0; w < WARPS; w++) sum += sums[w * 2 * MAX_HEAD_SIZE + column];
        partial[(long long)blockIdx.x * 2 * head_size + at] = sum;
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
head_norm_forward_f32(float* x, float* saved, const float* weight, int rows, int row_width, int q_heads, int k_heads,
                      int head_size, float eps) {
    forward(x, saved, weight, rows, row_width, q_heads, k_heads, head_size, eps);
}
extern "C" __global__ void __launch_bounds__(256)
head_norm_forward_bf16(bf16* x, bf16* saved, const float* weight, int rows, int row_width, int q_heads, int k_heads,
                       int head_size, float eps) {
    forward(x, saved, weight, rows, row_width, q_heads, k_heads, head_size, eps);
}
extern "C" __global__ void __launch_bounds__(256)
head_norm_backward_f32(float* dx, float* partial, const float* saved, const float* weight, int rows, int row_width,
                       int q_heads, int k_heads, int head_size, float eps) {
    backward(dx, partial, saved, weight, rows, row_width, q_heads, k_heads, head_size, eps);
}
extern "C" __global__ void __launch_bounds__(256)
head_norm_backward_bf16(bf16* dx, float* partial, const bf16* saved, const float* weight, int rows, int row_width,
                        int q_heads, int k_heads, int head_size, float eps) {
    backward(dx, partial, saved, weight, rows, row_width, q_heads, k_heads, head_size, eps);
}

/// dweight += the partial sums. Grid: 2 head_size / 32, rounded up; block: 256 threads.
extern "C" __global__ void __launch_bounds__(256)
head_norm_add_partial(float* dweight, const float* partial, int blocks, int width) {
    add_rows(dweight, partial, blocks, width);
}
