// Causal attention backward on tensor cores, in two kernels. Each recomputes the probabilities from
// q, k and lse, so blocks share no sums and every result is summed in one fixed order.
// With probabilities p and delta = sum(dout out): dv = p^T dout, ds = p (dout v^T - delta), dq = ds
// k / sqrt(hs), dk = ds^T q / sqrt(hs). dq and dk are rotated back, if their tokens were rotated.
#pragma once

#include "attention/tensor_tiles.cuh"

namespace {

/// Elements of shared memory: two resident tiles, and two stages of two staged tiles and two f32
/// per staged row.
template <int W, int M, int N>
constexpr int BACKWARD_ELEMENTS = (2 * 16 * M * WARPS + 4 * N) * STRIDE<W> + 2 * 4 * N;

/// Computes p, the probabilities of 16 M keys from `first_key` on for C queries from `first_query`
/// on, as left operands; transposed, (keys, queries). keys, queries: tiles; lse: that of the
/// queries, as a base-2 logarithm.
template <int W, int M, int C>
__device__ __forceinline__ void transposed_probabilities(unsigned (&p)[M][C / 16][4], const bf16* keys, const bf16* queries,
                                                         const float* lse, float scale, int first_key, int first_query) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    float scores[M][C / 8][4];
    set_zero(scores);
    add_product_transposed<W, M, C>(scores, queries, [&](unsigned(&a)[4], int m, int k) {
        load_left<W>(a, keys, 16 * m, 16 * k);
    });
    // Queries before a key are masked. Queries past the end are zero, and so are their lse and delta.
    if (first_query < first_key + 16 * M - 1) {
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int n = 0; n < C / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (first_query + 8 * n + 2 * t + i % 2 < first_key + 16 * m + 8 * (i / 2) + g)
                        scores[m][n][i] = -INFINITY;
    }
#pragma unroll
    for (int n = 0; n < C / 8; n++) {
        const float2 lses = *reinterpret_cast<const float2*>(lse + 8 * n + 2 * t);
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                scores[m][n][i] = fast_exp2(scores[m][n][i] * scale - (i % 2 == 0 ? lses.x : lses.y));
    }
    // In bf16 they take half the registers from here on.
    round_left<M, C>(p, scores);
}

/// Computes ds = p (dout v^T - delta), transposed like p. values, douts: tiles; delta: that of the
/// queries.
template <int W, int M, int C>
__device__ __forceinline__ void transposed_score_gradients(float (&ds)[M][C / 8][4], const unsigned (&p)[M][C / 16][4],
                                                           const bf16* values, const bf16* douts, const float* delta) {
    const int t = threadIdx.x % 4;
    set_zero(ds);
    add_product_transposed<W, M, C>(ds, douts, [&](unsigned(&a)[4], int m, int k) {
        load_left<W>(a, values, 16 * m, 16 * k);
    });
#pragma unroll
    for (int n = 0; n < C / 8; n++) {
        const float2 deltas = *reinterpret_cast<const float2*>(delta + 8 * n + 2 * t);
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int i = 0; i < 4; i += 2) {
                const float2 probability = unpack(p[m][n / 2][n % 2 * 2 + i / 2]);
                ds[m][n][i] = probability.x * (ds[m][n][i] - deltas.x);
                ds[m][n][i + 1] = probability.y * (ds[m][n][i + 1] - deltas.y);
            }
    }
}

/// Computes dk and dv of 64 M keys, 16 M per warp, over all queries from the first key on, for all
/// heads of the group. N queries at a time are in shared memory, C of them in registers. Scores are
/// held transposed, (keys, queries), so that one product's result is the next one's left operand.
/// dqkv like qkv; dout: (b t, nh hs); lse, delta: (b, nh, t).
/// Grid: (t / (64 M) rounded up, nkv, b); block: 128; shared: 2 BACKWARD_ELEMENTS bytes.
template <int W, int M, int N, int C>
__device__ __forceinline__ void tensor_backward_kv(bf16* dqkv, const bf16* dout, const bf16* qkv, const float* lse,
                                                   const float* delta, const Rotation& rotation, const Layout& l) {
    DYNAMIC_SHARED(shared);
    constexpr int ROWS = 16 * M * WARPS, TILE = N * STRIDE<W>;
    bf16* keys = reinterpret_cast<bf16*>(shared);
    bf16* values = keys + ROWS * STRIDE<W>;
    bf16* queries = values + ROWS * STRIDE<W>;                           // Two stages.
    bf16* douts = queries + 2 * TILE;                                    // Likewise.
    float* statistics = reinterpret_cast<float*>(douts + 2 * TILE);  // Two stages of lse (N) and delta (N).
    const int warp = threadIdx.x / 32;
    const int first_key = blockIdx.x * ROWS, kv_head = blockIdx.y, width = l.qkv_width();
    const long long first_row = (long long)blockIdx.z * l.positions;
    const bf16* sequence = qkv + first_row * width;
    const int first_tile = first_key / N, tiles = (l.positions + N - 1) / N - first_tile, steps = tiles * l.group();

    auto copy_queries = [&](int step) {
        const int head = kv_head * l.group() + step / tiles, query = (first_tile + step % tiles) * N;
        const int count = min(N, l.positions - query), stage = step % 2;
        copy_tile<W, N, THREADS, 1>(queries + stage * TILE, sequence + (long long)query * width + l.q_column(head), width, count, l);
        copy_tile<W, N, THREADS, 1>(douts + stage * TILE, dout + (first_row + query) * l.out_width() + head * l.head_size,
                        l.out_width(), count, l);
        const long long at = ((long long)blockIdx.z * l.num_heads + head) * l.positions + query;
        for (int i = threadIdx.x; i < 2 * N; i += THREADS) {
            const int row = i % N;
            statistics[stage * 2 * N + i] = row < count ? (i < N ? lse[at + row] * LOG2_E : delta[at + row]) : 0.0f;
        }
        commit_copies();
    };
    const int key_count = min(ROWS, l.positions - first_key);
    copy_tile<W, ROWS>(keys, sequence + (long long)first_key * width + l.k_column(kv_head), width, key_count, l);
    copy_tile<W, ROWS>(values, sequence + (long long)first_key * width + l.v_column(kv_head), width, key_count, l);
    copy_queries(0);

    float dk[M][W / 8][4], dv[M][W / 8][4];
    set_zero(dk);
    set_zero(dv);
    const float scale = LOG2_E / sqrtf((float)l.head_size);
    const int warp_key = first_key + 16 * M * warp;

    // Only this warp reads these rows, so its rows of the results can reuse their memory.
    bf16 *own_keys = keys + 16 * M * warp * STRIDE<W>, *own_values = values + 16 * M * warp * STRIDE<W>;
    for (int step = 0; step < steps; step++) {
        if (step + 1 < steps) {
            copy_queries(step + 1);
            wait_copies<1>();
        } else {
            wait_copies<0>();
        }
        __syncthreads();
        const bf16 *query_tile = queries + step % 2 * TILE, *dout_tile = douts + step % 2 * TILE;
        const float* row_lse = statistics + step % 2 * 2 * N;
        const int query = (first_tile + step % tiles) * N;
#pragma unroll 1
        for (int chunk = 0; chunk < N; chunk += C) {
            const int first = query + chunk;
            if (first + C <= warp_key) continue;  // The whole chunk is before the warp's keys.
            const bf16 *query_rows = query_tile + chunk * STRIDE<W>, *dout_rows = dout_tile + chunk * STRIDE<W>;
            unsigned p[M][C / 16][4];
            transposed_probabilities<W, M, C>(p, own_keys, query_rows, row_lse + chunk, scale, warp_key, first);
            add_product<W, M, C>(dv, p, dout_rows);
            float ds[M][C / 8][4];
            transposed_score_gradients<W, M, C>(ds, p, own_values, dout_rows, row_lse + N + chunk);
            add_product<W, M, C>(dk, ds, query_rows);
        }
        __syncthreads();
    }

    put_rotated_rows<W, M>(own_keys, dk, scale / LOG2_E, warp_key, rotation, l);
    put_rows<W, M>(own_values, dv, [&](int, int) { return 1.0f; });
    __syncwarp();
    bf16* to = dqkv + (first_row + warp_key) * width;
    write_tile<W, M>(to + l.k_column(kv_head), own_keys, width, l.positions - warp_key, l);
    write_tile<W, M>(to + l.v_column(kv_head), own_values, width, l.positions - warp_key, l);
}

/// Computes dq of 64 M queries of one head, 16 M per warp, over the keys up to the last query, N
/// and C at a time as above.
/// Grid: (t / (64 M) rounded up, nh, b); block: 128; shared: 2 BACKWARD_ELEMENTS bytes.
template <int W, int M, int N, int C>
__device__ __forceinline__ void tensor_backward_q(bf16* dqkv, const bf16* dout, const bf16* qkv, const float* lse,
                                                  const float* delta, const Rotation& rotation, const Layout& l) {
    DYNAMIC_SHARED(shared);
    constexpr int ROWS = 16 * M * WARPS, TILE = N * STRIDE<W>;
    bf16* queries = reinterpret_cast<bf16*>(shared);
    bf16* douts = queries + ROWS * STRIDE<W>;
    bf16* keys = douts + ROWS * STRIDE<W>;  // Two stages.
    bf16* values = keys + 2 * TILE;         // Likewise.
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int first_query = int(gridDim.x - 1 - blockIdx.x) * ROWS, head = blockIdx.y;
    const int kv_head = head / l.group(), width = l.qkv_width();
    const long long first_row = (long long)blockIdx.z * l.positions;
    const bf16* sequence = qkv + first_row * width;
    const int query_count = min(ROWS, l.positions - first_query);
    const int key_tiles = (first_query + query_count + N - 1) / N;

    auto copy_keys = [&](int tile) {
        const bf16* from = sequence + (long long)tile * N * width;
        const int count = min(N, l.positions - tile * N);
        copy_tile<W, N>(keys + tile % 2 * TILE, from + l.k_column(kv_head), width, count, l);
        copy_tile<W, N>(values + tile % 2 * TILE, from + l.v_column(kv_head), width, count, l);
        commit_copies();
    };
    copy_tile<W, ROWS>(queries, sequence + (long long)first_query * width + l.q_column(head), width, query_count, l);
    copy_tile<W, ROWS>(douts, dout + (first_row + first_query) * l.out_width() + head * l.head_size, l.out_width(),
                       query_count, l);
    copy_keys(0);

    float dq[M][W / 8][4], row_lse[M][2], row_delta[M][2];
    set_zero(dq);
    const int warp_query = first_query + 16 * M * warp;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int query = warp_query + 16 * m + 8 * half + g;
            const long long at = ((long long)blockIdx.z * l.num_heads + head) * l.positions + query;
            row_lse[m][half] = query < l.positions ? lse[at] * LOG2_E : 0.0f;
            row_delta[m][half] = query < l.positions ? delta[at] : 0.0f;
        }
    const float scale = LOG2_E / sqrtf((float)l.head_size);

    for (int tile = 0; tile < key_tiles; tile++) {
        if (tile + 1 < key_tiles) {
            copy_keys(tile + 1);
            wait_copies<1>();
        } else {
            wait_copies<0>();
        }
        __syncthreads();
        const bf16 *key_tile = keys + tile % 2 * TILE, *value_tile = values + tile % 2 * TILE;
#pragma unroll 1
        for (int chunk = 0; chunk < N; chunk += C) {
            const int first = tile * N + chunk;
            if (first >= warp_query + 16 * M) break;  // All remaining keys are after the warp's queries.
            const bf16 *key_rows = key_tile + chunk * STRIDE<W>, *value_rows = value_tile + chunk * STRIDE<W>;
            float p[M][C / 8][4], ds[M][C / 8][4];
            set_zero(p);
            add_product_transposed<W, M, C>(p, key_rows, [&](unsigned(&a)[4], int m, int k) {
                load_left<W>(a, queries, 16 * M * warp + 16 * m, 16 * k);
            });
            set_zero(ds);
            add_product_transposed<W, M, C>(ds, value_rows, [&](unsigned(&a)[4], int m, int k) {
                load_left<W>(a, douts, 16 * M * warp + 16 * m, 16 * k);
            });
            const bool masked = first + C - 1 > warp_query;
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int n = 0; n < C / 8; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const int key = first + 8 * n + 2 * t + i % 2, query = warp_query + 16 * m + 8 * (i / 2) + g;
                        const float probability = fast_exp2(p[m][n][i] * scale - row_lse[m][i / 2]);
                        ds[m][n][i] = masked && key > query ? 0.0f : probability * (ds[m][n][i] - row_delta[m][i / 2]);
                    }
            add_product<W, M, C>(dq, ds, key_rows);
        }
        __syncthreads();
    }

    bf16* own = queries + 16 * M * warp * STRIDE<W>;
    put_rotated_rows<W, M>(own, dq, scale / LOG2_E, warp_query, rotation, l);
    __syncwarp();
    write_tile<W, M>(dqkv + (first_row + warp_query) * width + l.q_column(head), own, width, l.positions - warp_query, l);
}

}  // namespace
