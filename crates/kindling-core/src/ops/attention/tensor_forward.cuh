// Causal attention forward on tensor cores, after FlashAttention-2 (arXiv 2307.08691). A block
// takes 64 M queries of one head, 16 M per warp, and loops over the keys up to its last query, N at
// a time. The next tile of keys and values is copied while the current one is used. Scores exist in
// registers only.
#pragma once

#include "attention/tensor_tiles.cuh"

namespace {

/// Elements of shared memory: queries, and two stages of keys and values.
template <int W, int M, int N> constexpr int FORWARD_ELEMENTS = (16 * M * WARPS + 4 * N) * STRIDE<W>;

/// Computes out and lse of 64 M queries of one head. W: head size rounded up to a multiple of 16.
/// out: (b t, nh hs); lse: (b, nh, t); qkv: (b t, (nh + 2 nkv) hs).
/// KEPT: whether a warp's queries stay in registers, or are read from shared memory for each tile.
/// Grid: (t / (64 M) rounded up, nh, b); block: 128; shared: 2 FORWARD_ELEMENTS bytes.
template <int W, int M, int N, bool KEPT>
__device__ __forceinline__ void tensor_forward(bf16* out, float* lse, const bf16* qkv, const Layout& l) {
    DYNAMIC_SHARED(shared);
    constexpr int ROWS = 16 * M * WARPS;
    bf16* queries = reinterpret_cast<bf16*>(shared);
    bf16* keys = queries + ROWS * STRIDE<W>;        // Two stages of N rows.
    bf16* values = keys + 2 * N * STRIDE<W>;        // Likewise.
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    // Longest blocks first.
    const int first_query = int(gridDim.x - 1 - blockIdx.x) * ROWS, head = blockIdx.y;
    const int kv_head = head / l.group(), width = l.qkv_width();
    const bf16* sequence = qkv + (long long)blockIdx.z * l.positions * width;
    const int query_count = min(ROWS, l.positions - first_query);
    const int key_tiles = (first_query + query_count + N - 1) / N;

    auto copy_keys = [&](int tile) {
        const bf16* from = sequence + (long long)tile * N * width;
        const int count = min(N, l.positions - tile * N);
        copy_tile<W, N>(keys + tile % 2 * N * STRIDE<W>, from + l.k_column(kv_head), width, count, l);
        copy_tile<W, N>(values + tile % 2 * N * STRIDE<W>, from + l.v_column(kv_head), width, count, l);
        commit_copies();
    };
    copy_tile<W, ROWS>(queries, sequence + (long long)first_query * width + l.q_column(head), width, query_count, l);
    copy_keys(0);

    unsigned q[KEPT ? M : 1][W / 16][4];
    float sums[M][W / 8][4], largest[M][2], total[M][2];
    set_zero(sums);
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            largest[m][half] = -INFINITY;
            total[m][half] = 0.0f;
        }
    const float scale = LOG2_E / sqrtf((float)l.head_size);
    const int warp_query = first_query + 16 * M * warp;

    for (int tile = 0; tile < key_tiles; tile++) {
        wait_copies<0>();
        __syncthreads();
        // No warp uses the previous tile's stage any more.
        if (tile + 1 < key_tiles) copy_keys(tile + 1);
        if constexpr (KEPT)
            if (tile == 0) load_left_rows<W, M>(q, queries, 16 * M * warp);
        if (tile * N < warp_query + 16 * M) {  // Otherwise the whole tile is after the warp's queries.
            float scores[M][N / 8][4];
            set_zero(scores);
            add_product_transposed<W, M, N>(scores, keys + tile % 2 * N * STRIDE<W>, [&](unsigned(&a)[4], int m, int k) {
#pragma unroll
                for (int r = 0; r < 4; r++)
                    if constexpr (KEPT) a[r] = q[m][k][r];
                if constexpr (!KEPT) load_left<W>(a, queries, 16 * M * warp + 16 * m, 16 * k);
            });
            if (tile * N + N - 1 > warp_query) {
#pragma unroll
                for (int m = 0; m < M; m++)
#pragma unroll
                    for (int n = 0; n < N / 8; n++)
#pragma unroll
                        for (int i = 0; i < 4; i++)
                            if (tile * N + 8 * n + 2 * t + i % 2 > warp_query + 16 * m + 8 * (i / 2) + g)
                                scores[m][n][i] = -INFINITY;
            }
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    float most = largest[m][half];
#pragma unroll
                    for (int n = 0; n < N / 8; n++)
#pragma unroll
                        for (int i = 2 * half; i < 2 * half + 2; i++) most = fmaxf(most, scores[m][n][i]);
                    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
                    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
                    // Key 0 is in the first tile, so no row's maximum is -infinity.
                    const float shift = most * scale, factor = fast_exp2(largest[m][half] * scale - shift);
                    largest[m][half] = most;
                    float sum = 0.0f;
#pragma unroll
                    for (int n = 0; n < N / 8; n++)
#pragma unroll
                        for (int i = 2 * half; i < 2 * half + 2; i++) {
                            scores[m][n][i] = fast_exp2(scores[m][n][i] * scale - shift);
                            sum += scores[m][n][i];
                        }
                    total[m][half] = total[m][half] * factor + sum;
#pragma unroll
                    for (int n = 0; n < W / 8; n++) {
                        sums[m][n][2 * half] *= factor;
                        sums[m][n][2 * half + 1] *= factor;
                    }
                }
            add_product<W, M, N>(sums, scores, values + tile % 2 * N * STRIDE<W>);
        }
    }

#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            total[m][half] += __shfl_xor_sync(0xffffffffu, total[m][half], 1);
            total[m][half] += __shfl_xor_sync(0xffffffffu, total[m][half], 2);
            const int query = warp_query + 16 * m + 8 * half + g;
            if (t == 0 && query < l.positions)
                lse[((long long)blockIdx.z * l.num_heads + head) * l.positions + query] =
                    (largest[m][half] * scale + log2f(total[m][half])) / LOG2_E;
        }
    // Only this warp reads its queries, so its rows of the result can reuse their memory.
    bf16* own = queries + 16 * M * warp * STRIDE<W>;
    put_rows<W, M>(own, sums, [&](int m, int half) { return 1.0f / total[m][half]; });
    __syncwarp();
    write_tile<W, M>(out + ((long long)blockIdx.z * l.positions + warp_query) * l.out_width() + head * l.head_size, own,
                     l.out_width(), l.positions - warp_query, l);
}

}  // namespace
