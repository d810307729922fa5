// Causal attention backward on tensor cores in one kernel: five products per pair of tiles instead
// of the seven of tensor_backward.cuh. A block owns keys and sums their dk and dv in registers. Its
// share of dq goes to f32 memory that the blocks of all keys add to in turn, as in
// FlashAttention-2's deterministic mode (arXiv 2307.08691), so every result is summed in one fixed
// order.
#pragma once

#include "attention/tensor_backward.cuh"
#include "kernels/turns.cuh"

namespace {

/// Returns threadIdx.x, read anew so that the compiler does not keep what it derives from it in
/// registers.
static __device__ __forceinline__ int thread_index() {
#ifdef KINDLING_EMULATED
    return threadIdx.x;
#else
    int index;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(index));
    return index;
#endif
}

/// Sizes of a kernel: a block of BLOCK_WARPS warps owns 16 M keys per warp and takes N queries at a
/// time, of which a warp holds the scores of C in registers.
template <int W, int BLOCK_WARPS, int M, int N> struct Joint {
    static constexpr int KEYS = 16 * M * BLOCK_WARPS, TILE = N * STRIDE<W>, SCORE_STRIDE = N + 8;
    /// Shared memory: keys and values, two stages of queries and of dout, the tile ds^T, two stages
    /// of lse and delta in f32.
    static constexpr int BYTES = 2 * (2 * KEYS * STRIDE<W> + 4 * TILE + KEYS * SCORE_STRIDE) + 4 * 4 * N;
    /// A warp's part of a tile of dq: 16 DM rows, DW columns.
    static constexpr int ROW_PARTS = BLOCK_WARPS / 2, DM = N / 16 / ROW_PARTS, DW = W / 2;
    static_assert(KEYS % N == 0, "a tile of queries has its diagonal in one block");
    static_assert(N % (16 * ROW_PARTS) == 0, "whole parts");
};

/// Loads the 16 x 16 left operand at (row, column) of the transpose of a tile with rows of STRIDE
/// elements.
template <int STRIDE>
__device__ __forceinline__ void load_left_transposed(unsigned (&a)[4], const bf16* tile, int row, int column, int lane) {
    load_matrices<true>(a, tile + (column + lane / 16 * 8 + lane % 8) * STRIDE + row + lane / 8 % 2 * 8);
}

/// Computes dq, dk and dv. dqkv like qkv; dout: (b t, nh hs); lse, delta: (b, nh, t). dq: f32
/// scratch, (b, nh, t / N rounded up, N W), each tile in the order of the threads' accumulators.
/// turns: (b, nh, t / N rounded up), the number of blocks that have added to each tile of dq; zero
/// before and after.
///
/// The blocks add to a tile of dq in order, from the one on its diagonal down to that of key 0. The
/// first one stores, the last one writes dqkv. A block begins at its own diagonal, so blocks that
/// start together never wait for each other: they are a diagonal apart.
/// Grid: (t / (16 M BLOCK_WARPS) rounded up, nkv, b); block: 32 BLOCK_WARPS; shared: Joint::BYTES.
template <int W, int BLOCK_WARPS, int M, int N, int C>
__device__ __forceinline__ void tensor_backward_joint(bf16* dqkv, float* dq, int* turns, const bf16* dout, const bf16* qkv,
                                                      const float* lse, const float* delta, const Rotation& rotation,
                                                      const Layout& l) {
    using J = Joint<W, BLOCK_WARPS, M, N>;
    constexpr int KEYS = J::KEYS, TILE = J::TILE, SCORE_STRIDE = J::SCORE_STRIDE, DM = J::DM, DW = J::DW;
    constexpr int COUNT = 32 * BLOCK_WARPS, ROW_STATISTICS = (2 * N + COUNT - 1) / COUNT;
    static_assert(C % (16 * DM) == 0 && N % C == 0, "a part of dq is in one chunk");
    DYNAMIC_SHARED(shared);
    bf16* keys = reinterpret_cast<bf16*>(shared);
    bf16* values = keys + KEYS * STRIDE<W>;
    bf16* queries = values + KEYS * STRIDE<W>;  // Two stages.
    bf16* douts = queries + 2 * TILE;           // Likewise.
    bf16* score_tile = douts + 2 * TILE;        // ds^T (KEYS, N).
    float* statistics = reinterpret_cast<float*>(score_tile + KEYS * SCORE_STRIDE);  // Two stages of lse (N) and delta (N).
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    // The last keys come first, because a block waits for the block of the keys after its own.
    const int block = gridDim.x - 1 - blockIdx.x, first_key = block * KEYS, kv_head = blockIdx.y, width = l.qkv_width();
    const long long first_row = (long long)blockIdx.z * l.positions;
    const bf16* sequence = qkv + first_row * width;
    const int all_tiles = (l.positions + N - 1) / N, first_tile = first_key / N, tiles = all_tiles - first_tile;
    const int first_head = kv_head * l.group();

    // `tile` counts from the block's first tile.
    auto copy_queries = [&](int stage, int head, int tile) {
        const int query = (first_tile + tile) * N, count = min(N, l.positions - query);
        copy_tile<W, N, COUNT, 1>(queries + stage * TILE, sequence + (long long)query * width + l.q_column(head), width, count, l);
        copy_tile<W, N, COUNT, 1>(douts + stage * TILE, dout + (first_row + query) * l.out_width() + head * l.head_size,
                               l.out_width(), count, l);
        commit_copies();
    };
    // A thread's part of a tile's lse and delta passes through registers, as nothing waits for it.
    auto load_statistics = [&](float(&to)[ROW_STATISTICS], int head, int tile) {
        const int query = (first_tile + tile) * N;
        const long long at = ((long long)blockIdx.z * l.num_heads + head) * l.positions + query;
#pragma unroll
        for (int i = 0; i < ROW_STATISTICS; i++) {
            const int index = threadIdx.x + i * COUNT, row = index % N;
            to[i] = index >= 2 * N || query + row >= l.positions ? 0.0f : (index < N ? lse : delta)[at + row];
        }
    };
    auto put_statistics = [&](const float(&from)[ROW_STATISTICS], int stage) {
#pragma unroll
        for (int i = 0; i < ROW_STATISTICS; i++) {
            const int index = threadIdx.x + i * COUNT;
            if (index < 2 * N) statistics[stage * 2 * N + index] = from[i] * (index < N ? LOG2_E : 1.0f);
        }
    };
    const int key_count = min(KEYS, l.positions - first_key);
    copy_tile<W, KEYS, COUNT>(keys, sequence + (long long)first_key * width + l.k_column(kv_head), width, key_count, l);
    copy_tile<W, KEYS, COUNT>(values, sequence + (long long)first_key * width + l.v_column(kv_head), width, key_count, l);
    copy_queries(0, first_head, 0);
    float row_statistics[ROW_STATISTICS];
    load_statistics(row_statistics, first_head, 0);
    put_statistics(row_statistics, 0);

    float dk[M][W / 8][4], dv[M][W / 8][4];
    set_zero(dk);
    set_zero(dv);
    const float scale = LOG2_E / sqrtf((float)l.head_size);
    const int warp_key = first_key + 16 * M * warp;
    // The warp that is idle most on the diagonal passes turns on.
    const bool leads = threadIdx.x == COUNT - 32;
    // Index of a tile of dq.
    auto place_of = [&](int head, int tile) {
        return ((long long)blockIdx.z * l.num_heads + head) * all_tiles + first_tile + tile;
    };
    // How many blocks add to a tile of dq before this one.
    auto turn_of = [&](int tile) { return tile / (KEYS / N); };
    auto pass_on = [&](int head, int tile) {
        if (leads) pass_turn(turns + place_of(head, tile), block > 0 ? turn_of(tile) + 1 : 0);
    };
    const int end_head = first_head + l.group();
    int head = first_head, tile = 0, stage = 0;

    bf16 *own_keys = keys + 16 * M * warp * STRIDE<W>, *own_values = values + 16 * M * warp * STRIDE<W>;
    while (true) {
        wait_copies<0>();
        __syncthreads();
        // The barrier follows all of the block's writes to the previous tile of dq.
        if (tile > 0) pass_on(head, tile - 1);
        else if (head > first_head) pass_on(head - 1, tiles - 1);
        const bool last = tile + 1 == tiles && head + 1 == end_head;
        if (!last) {
            const bool same = tile + 1 < tiles;
            copy_queries(1 - stage, same ? head : head + 1, same ? tile + 1 : 0);
            load_statistics(row_statistics, same ? head : head + 1, same ? tile + 1 : 0);
        }
        const bf16 *query_tile = queries + stage * TILE, *dout_tile = douts + stage * TILE;
        const float* row_lse = statistics + stage * 2 * N;
        const int query = (first_tile + tile) * N;
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
            round_left<M, C>(p, ds);
            bf16* own_scores = score_tile + (16 * M * warp + g) * SCORE_STRIDE + chunk + 2 * t;
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int k = 0; k < C / 16; k++)
#pragma unroll
                    for (int r = 0; r < 4; r++)
                        *reinterpret_cast<unsigned*>(own_scores + (16 * m + 8 * (r % 2)) * SCORE_STRIDE + 16 * k + 8 * (r / 2)) =
                            p[m][k][r];
            add_product<W, M, C>(dk, p, query_rows);
        }
        if (!last) put_statistics(row_statistics, 1 - stage);

        // The warp's part of dq += ds k, over the keys up to its last query. What earlier blocks
        // have added is fetched while other warps still compute their ds.
        const int thread = thread_index(), part = thread / 32, part_lane = thread % 32;
        const int row = part / 2 * 16 * DM, column = part % 2 * DW;
        float4* shared_dq = reinterpret_cast<float4*>(dq + place_of(head, tile) * (N * W)) + part * (DM * DW / 8 * 32) + part_lane;
        float sums[DM][DW / 8][4];
        set_zero(sums);
        if (turn_of(tile) > 0) {
            if (part_lane == 0) wait_for_turn(turns + place_of(head, tile), turn_of(tile));
            __syncwarp();
#pragma unroll
            for (int m = 0; m < DM; m++)
#pragma unroll
                for (int n = 0; n < DW / 8; n++) {
                    const float4 before = __ldcg(shared_dq + (m * (DW / 8) + n) * 32);
                    sums[m][n][0] = before.x; sums[m][n][1] = before.y; sums[m][n][2] = before.z; sums[m][n][3] = before.w;
                }
        }
        __syncthreads();
        const int key_end = min(KEYS, query + row + 16 * DM - first_key);
#pragma unroll 1
        for (int key = 0; key < key_end; key += 16) {
            unsigned a[DM][4];
#pragma unroll
            for (int m = 0; m < DM; m++) load_left_transposed<SCORE_STRIDE>(a[m], score_tile, row + 16 * m, key, part_lane);
#pragma unroll
            for (int n = 0; n < DW / 16; n++) {
                unsigned b[4];
                load_matrices<true>(b, keys + (key + part_lane % 16) * STRIDE<W> + column + 16 * n + part_lane / 16 * 8);
#pragma unroll
                for (int m = 0; m < DM; m++) {
                    mma(sums[m][2 * n], a[m], b[0], b[1]);
                    mma(sums[m][2 * n + 1], a[m], b[2], b[3]);
                }
            }
        }
        if (block > 0) {
#pragma unroll
            for (int m = 0; m < DM; m++)
#pragma unroll
                for (int n = 0; n < DW / 8; n++) {
                    const float(&sum)[4] = sums[m][n];
                    __stcg(shared_dq + (m * (DW / 8) + n) * 32, make_float4(sum[0], sum[1], sum[2], sum[3]));
                }
        } else {
            write_rotated_rows<DW, DM>(dqkv + first_row * width + l.q_column(head), sums, scale / LOG2_E, query + row, column,
                                       rotation, l);
        }
        if (last) break;
        stage = 1 - stage;
        if (++tile == tiles) {
            tile = 0;
            head++;
        }
    }
    __syncthreads();
    pass_on(end_head - 1, tiles - 1);

    // No warp reads keys or values any more, so each warp's results can reuse its rows.
    put_rotated_rows<W, M>(own_keys, dk, scale / LOG2_E, warp_key, rotation, l);
    put_rows<W, M>(own_values, dv, [&](int, int) { return 1.0f; });
    __syncwarp();
    bf16* to = dqkv + (first_row + warp_key) * width;
    write_tile<W, M>(to + l.k_column(kv_head), own_keys, width, l.positions - warp_key, l);
    write_tile<W, M>(to + l.v_column(kv_head), own_values, width, l.positions - warp_key, l);
}

}  // namespace
