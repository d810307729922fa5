// Embedding.
// ids: (rows) i32 below 2^31; weight, dweight: (vocab_size, d_model) f32; out, dout: (rows,
// d_model) f32, the residual stream.
#include "kernels/elements.cuh"

namespace {

template <int N> __device__ void copy_row(float* out, const float* weight, int d_model) {
    for (int at = threadIdx.x % 32 * N; at < d_model; at += 32 * N) {
        float v[N];
        load<N>(v, weight + at);
        store<N>(out + at, v);
    }
}

/// sums (8, 32 N): warp w sums the w-th eighth of the rows order[first .. end), for the columns
/// from `column` on.
template <int N>
__device__ void sum_rows(float* sums, const float* dout, const int* order, int first, int end, int column, int d_model) {
    const int warp = threadIdx.x / 32, count = end - first;
    const int stop = first + int((long long)count * (warp + 1) / 8);
    float sum[N] = {};
    if (column < d_model) {
#pragma unroll 4
        for (int i = first + int((long long)count * warp / 8); i < stop; i++) {
            float v[N];
            load<N>(v, dout + (long long)order[i] * d_model + column);
#pragma unroll
            for (int j = 0; j < N; j++) sum[j] += v[j];
        }
    }
    store<N>(sums + threadIdx.x * N, sum);
}

template <int N>
__device__ void add_segment(float (&sums)[1024], float* dweight, const float* dout, const int* order, int first, int end,
                            int d_model) {
    const int lane = threadIdx.x % 32;
    for (int start = blockIdx.y * 128; start < min(d_model, int(blockIdx.y) * 128 + 128); start += 32 * N) {
        const int column = start + lane * N;
        sum_rows<N>(sums, dout, order, first, end, column, d_model);
        __syncthreads();
        if (threadIdx.x < 32 && column < d_model) {
            float total[N], part[N];
            load<N>(total, sums + lane * N);
            for (int warp = 1; warp < 8; warp++) {
                load<N>(part, sums + (warp * 32 + lane) * N);
#pragma unroll
                for (int j = 0; j < N; j++) total[j] += part[j];
            }
            load<N>(part, dweight + column);
#pragma unroll
            for (int j = 0; j < N; j++) total[j] += part[j];
            store<N>(dweight + column, total);
        }
        __syncthreads();
    }
}

}  // namespace

/// out[row] = weight[ids[row]]. Grid: rows / 8, rounded up; block: 256 threads, one warp per row;
/// no shared memory.
extern "C" __global__ void __launch_bounds__(256)
embedding_forward(float* out, const int* ids, const float* weight, int rows, int d_model) {
    const int row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) return;
    const float* from = weight + (long long)ids[row] * d_model;
    float* to = out + (long long)row * d_model;
    if (d_model % 4 == 0 && is_aligned<4>(out) && is_aligned<4>(weight)) copy_row<4>(to, from, d_model);
    else copy_row<1>(to, from, d_model);
}

/// dweight[id] += the sum of dout over the rows of that id, without atomics: rows are grouped by
/// id. Group s holds the rows order[starts[s] .. starts[s + 1]) of id group_ids[s]; there are
/// *groups of them. A group's rows are cut into eighths that depend on their number only.
/// Grid: (largest possible number of groups, d_model / 128 rounded up); block: 256 threads; shared:
/// 4 KiB.
extern "C" __global__ void __launch_bounds__(256)
embedding_backward(float* dweight, const float* dout, const int* order, const int* starts, const int* group_ids,
                   const int* groups, int d_model) {
    SHARED_ARRAY(float4, memory, 256);
    if (int(blockIdx.x) >= *groups) return;
    float(&sums)[1024] = *reinterpret_cast<float(*)[1024]>(&memory[0]);
    const int first = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    float* to = dweight + (long long)group_ids[blockIdx.x] * d_model;
    if (d_model % 4 == 0 && is_aligned<4>(dweight) && is_aligned<4>(dout))
        add_segment<4>(sums, to, dout, order, first, end, d_model);
    else
        add_segment<1>(sums, to, dout, order, first, end, d_model);
}
