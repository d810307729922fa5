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

/// Groups with more rows than this are summed by all warps of a block.
constexpr int ROWS_OF_ONE_WARP = 32;

/// Adds to sum (N) the rows order[first .. end) of dout, N columns from `column` on.
template <int N>
__device__ void add_rows(float (&sum)[N], const float* dout, const int* order, int first, int end, int column, int d_model) {
    if (column >= d_model) return;
#pragma unroll 8
    for (int i = first; i < end; i++) {
        float v[N];
        load<N>(v, dout + (long long)order[i] * d_model + column);
#pragma unroll
        for (int j = 0; j < N; j++) sum[j] += v[j];
    }
}

template <int N> __device__ void add_to(float* dweight, const float (&sum)[N], int column, int d_model) {
    if (column >= d_model) return;
    float old[N];
    load<N>(old, dweight + column);
#pragma unroll
    for (int j = 0; j < N; j++) old[j] += sum[j];
    store<N>(dweight + column, old);
}

/// Adds up the groups that this block takes, in the columns from `start` up to `stop`.
template <int N>
__device__ void add_groups(float (&sums)[1024], float* dweight, const float* dout, const int* order, const int* starts,
                           const int* group_ids, int groups, int start, int stop, int d_model) {
    // The largest groups are often neighbours, so a block takes groups that are far apart.
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, own = blockIdx.x + warp * gridDim.x;
    if (own < groups && starts[own + 1] - starts[own] <= ROWS_OF_ONE_WARP) {
        float* to = dweight + (long long)group_ids[own] * d_model;
        for (int column = start + lane * N; column - lane * N < stop; column += 32 * N) {
            float sum[N] = {};
            add_rows<N>(sum, dout, order, starts[own], starts[own + 1], column, d_model);
            add_to<N>(to, sum, column, d_model);
        }
    }
    for (int group = blockIdx.x; group < groups; group += gridDim.x) {
        const int first = starts[group], count = starts[group + 1] - first;
        if (count <= ROWS_OF_ONE_WARP) continue;
        for (int column = start + lane * N; column - lane * N < stop; column += 32 * N) {
            float sum[N] = {};
            const int from = first + int((long long)count * warp / 8), to = first + int((long long)count * (warp + 1) / 8);
            add_rows<N>(sum, dout, order, from, to, column, d_model);
            store<N>(sums + threadIdx.x * N, sum);
            __syncthreads();
            if (warp == 0) {
                for (int part = 1; part < 8; part++) {
                    float other[N];
                    load<N>(other, sums + (part * 32 + lane) * N);
#pragma unroll
                    for (int j = 0; j < N; j++) sum[j] += other[j];
                }
                add_to<N>(dweight + (long long)group_ids[group] * d_model, sum, column, d_model);
            }
            __syncthreads();
        }
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
/// *groups of them. A warp sums a small group in the order of its rows; a large one is cut into
/// eighths, which depend on its size only.
/// Grid: (largest possible number of groups / 8, d_model / 128, both rounded up); block: 256
/// threads; shared: 4 KiB.
extern "C" __global__ void __launch_bounds__(256)
embedding_backward(float* dweight, const float* dout, const int* order, const int* starts, const int* group_ids,
                   const int* groups, int d_model) {
    SHARED_ARRAY(float4, memory, 256);
    float(&sums)[1024] = *reinterpret_cast<float(*)[1024]>(&memory[0]);
    const int count = *groups, start = blockIdx.y * 128, stop = min(d_model, start + 128);
    if (int(blockIdx.x) >= count) return;
    if (d_model % 4 == 0 && is_aligned<4>(dweight) && is_aligned<4>(dout))
        add_groups<4>(sums, dweight, dout, order, starts, group_ids, count, start, stop, d_model);
    else
        add_groups<1>(sums, dweight, dout, order, starts, group_ids, count, start, stop, d_model);
}
