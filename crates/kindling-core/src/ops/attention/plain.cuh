// Causal attention in f32 without tensor cores, forward and backward. The scheme is that of the
// tensor-core kernels, with 32 rows per block and 32 staged rows at a time.
// 128 threads: thread (y = threadIdx.x / 8, x = threadIdx.x % 8) owns rows y and y + 16, and
// columns x + 8 j of a tile's scores. The 8 threads of a row are in one warp. W: head size rounded
// up to a multiple of 8.
#pragma once

#include "attention/tensor_tiles.cuh"

namespace {

constexpr int PLAIN_ROWS = 32;

/// Shared memory in f32 elements: of a tile, and of a kernel, which has four tiles, two tiles of
/// scores and two numbers per staged row.
template <int W> constexpr int PLAIN_TILE = PLAIN_ROWS * (W + 1);
template <int W> constexpr int PLAIN_FLOATS = 4 * PLAIN_TILE<W> + 2 * PLAIN_ROWS * (PLAIN_ROWS + 1) + 2 * PLAIN_ROWS;

template <int W>
__device__ __forceinline__ void copy_plain(float* tile, const float* from, int width, int count, int head_size) {
    for (int i = threadIdx.x; i < PLAIN_ROWS * W; i += THREADS) {
        const int row = i / W, column = i % W;
        tile[row * (W + 1) + column] = row < count && column < head_size ? from[(long long)row * width + column] : 0.0f;
    }
}

/// Computes the thread's products (2, 4): rows y + 16 i of `left` times rows x + 8 j of `right`.
template <int W>
__device__ __forceinline__ void row_products(float (&products)[2][4], const float* left, const float* right) {
    const int y = threadIdx.x / 8, x = threadIdx.x % 8;
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) products[i][j] = 0.0f;
#pragma unroll 8
    for (int k = 0; k < W; k++)
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                products[i][j] += left[(y + 16 * i) * (W + 1) + k] * right[(x + 8 * j) * (W + 1) + k];
}

/// The thread's sums (2, W / 8) += its rows of `scores` (32, 32) times `tile`, columns x + 8 j.
template <int W>
__device__ __forceinline__ void add_plain_product(float (&sums)[2][W / 8], const float* scores, const float* tile) {
    const int y = threadIdx.x / 8, x = threadIdx.x % 8;
#pragma unroll 4
    for (int k = 0; k < PLAIN_ROWS; k++)
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int j = 0; j < W / 8; j++)
                sums[i][j] += scores[(y + 16 * i) * (PLAIN_ROWS + 1) + k] * tile[k * (W + 1) + x + 8 * j];
}

/// Stores the thread's scores in its rows of `square`, for the 8 threads that share those rows.
__device__ __forceinline__ void put_scores(float* square, const float (&scores)[2][4]) {
    const int y = threadIdx.x / 8, x = threadIdx.x % 8;
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) square[(y + 16 * i) * (PLAIN_ROWS + 1) + x + 8 * j] = scores[i][j];
}

template <int W>
__device__ __forceinline__ void write_plain(float* to, const float (&sums)[2][W / 8], int width, int count, int head_size,
                                            float factor) {
    const int y = threadIdx.x / 8, x = threadIdx.x % 8;
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < W / 8; j++)
            if (y + 16 * i < count && x + 8 * j < head_size)
                to[(long long)(y + 16 * i) * width + x + 8 * j] = sums[i][j] * factor;
}

/// Rotates the thread's gradients of the positions from `position` on by the negative angles. The
/// other element of a pair is in the neighbouring lane.
template <int W>
__device__ __forceinline__ void rotate_plain(float (&sums)[2][W / 8], const Rotation& rotation, int position,
                                             const Layout& l) {
    if (rotation.cos == nullptr) return;
    const int y = threadIdx.x / 8, x = threadIdx.x % 8;
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < W / 8; j++) {
            const float other = __shfl_xor_sync(0xffffffffu, sums[i][j], 1);
            float low = x % 2 == 0 ? sums[i][j] : other, high = x % 2 == 0 ? other : sums[i][j];
            rotate_back(low, high, rotation, position + y + 16 * i, x / 2 * 2 + 8 * j, l);
            sums[i][j] = x % 2 == 0 ? low : high;
        }
}

/// Computes out and lse of 32 queries of one head. out: (b t, nh hs); lse: (b, nh, t).
/// Grid: (t / 32 rounded up, nh, b); block: 128; shared: 4 PLAIN_FLOATS bytes.
template <int W> __device__ void plain_forward(float* out, float* lse, const float* qkv, const Layout& l) {
    DYNAMIC_SHARED(shared);
    float* queries = reinterpret_cast<float*>(shared);
    float *keys = queries + PLAIN_TILE<W>, *values = keys + PLAIN_TILE<W>, *square = values + PLAIN_TILE<W>;
    const int y = threadIdx.x / 8, x = threadIdx.x % 8;
    const int first_query = int(gridDim.x - 1 - blockIdx.x) * PLAIN_ROWS, head = blockIdx.y;
    const int kv_head = head / l.group(), width = l.qkv_width(), count = l.positions - first_query;
    const float* sequence = qkv + (long long)blockIdx.z * l.positions * width;
    copy_plain<W>(queries, sequence + (long long)first_query * width + l.q_column(head), width, count, l.head_size);
    const float scale = LOG2_E / sqrtf((float)l.head_size);
    float sums[2][W / 8] = {}, largest[2] = {-INFINITY, -INFINITY}, total[2] = {};

    for (int key = 0; key <= first_query; key += PLAIN_ROWS) {
        const float* from = sequence + (long long)key * width;
        __syncthreads();
        copy_plain<W>(keys, from + l.k_column(kv_head), width, l.positions - key, l.head_size);
        copy_plain<W>(values, from + l.v_column(kv_head), width, l.positions - key, l.head_size);
        __syncthreads();
        float scores[2][4];
        row_products<W>(scores, queries, keys);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float most = largest[i];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                if (key + x + 8 * j > first_query + y + 16 * i) scores[i][j] = -INFINITY;
                most = fmaxf(most, scores[i][j]);
            }
#pragma unroll
            for (int bits = 1; bits < 8; bits *= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, bits));
            const float factor = exp2f((largest[i] - most) * scale);
            largest[i] = most;
            float sum = 0.0f;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                scores[i][j] = exp2f((scores[i][j] - most) * scale);
                sum += scores[i][j];
            }
            total[i] = total[i] * factor + sum;
#pragma unroll
            for (int j = 0; j < W / 8; j++) sums[i][j] *= factor;
        }
        put_scores(square, scores);
        __syncwarp();
        add_plain_product<W>(sums, square, values);
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int bits = 1; bits < 8; bits *= 2) total[i] += __shfl_xor_sync(0xffffffffu, total[i], bits);
#pragma unroll
        for (int j = 0; j < W / 8; j++) sums[i][j] /= total[i];
        const int query = first_query + y + 16 * i;
        if (x == 0 && query < l.positions)
            lse[((long long)blockIdx.z * l.num_heads + head) * l.positions + query] =
                (largest[i] * scale + log2f(total[i])) / LOG2_E;
    }
    float* to = out + ((long long)blockIdx.z * l.positions + first_query) * l.out_width() + head * l.head_size;
    write_plain<W>(to, sums, l.out_width(), count, l.head_size, 1.0f);
}

/// Computes dk and dv of 32 keys over all queries from the first key on, for all heads of the
/// group. Scores are transposed, (keys, queries).
/// Grid: (t / 32 rounded up, nkv, b); block: 128; shared: 4 PLAIN_FLOATS bytes.
template <int W>
__device__ void plain_backward_kv(float* dqkv, const float* dout, const float* qkv, const float* lse, const float* delta,
                                  const Rotation& rotation, const Layout& l) {
    DYNAMIC_SHARED(shared);
    float* keys = reinterpret_cast<float*>(shared);
    float *values = keys + PLAIN_TILE<W>, *queries = values + PLAIN_TILE<W>, *douts = queries + PLAIN_TILE<W>;
    float *p_square = douts + PLAIN_TILE<W>, *ds_square = p_square + PLAIN_ROWS * (PLAIN_ROWS + 1);
    float* statistics = ds_square + PLAIN_ROWS * (PLAIN_ROWS + 1);
    const int y = threadIdx.x / 8, x = threadIdx.x % 8;
    const int first_key = blockIdx.x * PLAIN_ROWS, kv_head = blockIdx.y, width = l.qkv_width();
    const long long first_row = (long long)blockIdx.z * l.positions;
    const float* sequence = qkv + first_row * width;
    const int count = l.positions - first_key;
    copy_plain<W>(keys, sequence + (long long)first_key * width + l.k_column(kv_head), width, count, l.head_size);
    copy_plain<W>(values, sequence + (long long)first_key * width + l.v_column(kv_head), width, count, l.head_size);
    const float scale = LOG2_E / sqrtf((float)l.head_size);
    float dk[2][W / 8] = {}, dv[2][W / 8] = {};

    for (int head = kv_head * l.group(); head < (kv_head + 1) * l.group(); head++)
        for (int query = first_key; query < l.positions; query += PLAIN_ROWS) {
            const int left = l.positions - query;
            __syncthreads();
            copy_plain<W>(queries, sequence + (long long)query * width + l.q_column(head), width, left, l.head_size);
            copy_plain<W>(douts, dout + (first_row + query) * l.out_width() + head * l.head_size, l.out_width(), left,
                          l.head_size);
            const long long at = ((long long)blockIdx.z * l.num_heads + head) * l.positions + query;
            for (int i = threadIdx.x; i < 2 * PLAIN_ROWS; i += THREADS) {
                const int row = i % PLAIN_ROWS;
                statistics[i] = row >= left ? 0.0f : i < PLAIN_ROWS ? lse[at + row] * LOG2_E : delta[at + row];
            }
            __syncthreads();
            float p[2][4], ds[2][4];
            row_products<W>(p, keys, queries);
            row_products<W>(ds, values, douts);
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const int column = x + 8 * j;
                    const bool counts = query + column >= first_key + y + 16 * i && column < left;
                    p[i][j] = counts ? exp2f(p[i][j] * scale - statistics[column]) : 0.0f;
                    ds[i][j] = p[i][j] * (ds[i][j] - statistics[PLAIN_ROWS + column]);
                }
            put_scores(p_square, p);
            put_scores(ds_square, ds);
            __syncwarp();
            add_plain_product<W>(dv, p_square, douts);
            add_plain_product<W>(dk, ds_square, queries);
        }
    rotate_plain<W>(dk, rotation, first_key, l);
    float* to = dqkv + (first_row + first_key) * width;
    write_plain<W>(to + l.k_column(kv_head), dk, width, count, l.head_size, scale / LOG2_E);
    write_plain<W>(to + l.v_column(kv_head), dv, width, count, l.head_size, 1.0f);
}

/// Computes dq of 32 queries of one head over the keys up to the last query.
/// Grid: (t / 32 rounded up, nh, b); block: 128; shared: 4 PLAIN_FLOATS bytes.
template <int W>
__device__ void plain_backward_q(float* dqkv, const float* dout, const float* qkv, const float* lse, const float* delta,
                                 const Rotation& rotation, const Layout& l) {
    DYNAMIC_SHARED(shared);
    float* queries = reinterpret_cast<float*>(shared);
    float *douts = queries + PLAIN_TILE<W>, *keys = douts + PLAIN_TILE<W>, *values = keys + PLAIN_TILE<W>;
    float* square = values + PLAIN_TILE<W>;
    const int y = threadIdx.x / 8, x = threadIdx.x % 8;
    const int first_query = int(gridDim.x - 1 - blockIdx.x) * PLAIN_ROWS, head = blockIdx.y;
    const int kv_head = head / l.group(), width = l.qkv_width(), count = l.positions - first_query;
    const long long first_row = (long long)blockIdx.z * l.positions;
    const float* sequence = qkv + first_row * width;
    copy_plain<W>(queries, sequence + (long long)first_query * width + l.q_column(head), width, count, l.head_size);
    copy_plain<W>(douts, dout + (first_row + first_query) * l.out_width() + head * l.head_size, l.out_width(), count,
                  l.head_size);
    const float scale = LOG2_E / sqrtf((float)l.head_size);
    float dq[2][W / 8] = {}, row_lse[2], row_delta[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int query = first_query + y + 16 * i;
        const long long at = ((long long)blockIdx.z * l.num_heads + head) * l.positions + query;
        row_lse[i] = query < l.positions ? lse[at] * LOG2_E : 0.0f;
        row_delta[i] = query < l.positions ? delta[at] : 0.0f;
    }
    for (int key = 0; key <= first_query; key += PLAIN_ROWS) {
        const float* from = sequence + (long long)key * width;
        __syncthreads();
        copy_plain<W>(keys, from + l.k_column(kv_head), width, l.positions - key, l.head_size);
        copy_plain<W>(values, from + l.v_column(kv_head), width, l.positions - key, l.head_size);
        __syncthreads();
        float p[2][4], ds[2][4];
        row_products<W>(p, queries, keys);
        row_products<W>(ds, douts, values);
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const bool counts = key + x + 8 * j <= first_query + y + 16 * i;
                const float probability = exp2f(p[i][j] * scale - row_lse[i]);
                ds[i][j] = counts ? probability * (ds[i][j] - row_delta[i]) : 0.0f;
            }
        put_scores(square, ds);
        __syncwarp();
        add_plain_product<W>(dq, square, keys);
    }
    rotate_plain<W>(dq, rotation, first_query, l);
    write_plain<W>(dqkv + (first_row + first_query) * width + l.q_column(head), dq, width, count, l.head_size,
                   scale / LOG2_E);
}

}  // namespace
