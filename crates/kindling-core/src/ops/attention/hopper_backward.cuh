// Causal attention backward with the matrix instructions of Hopper's warpgroups, for heads of 64, in
// two kernels. Both compute the probabilities, so there are seven products instead of five, but no
// result passes through memory between products, and blocks share no sums.
// With probabilities p and delta = sum(dout out): dv = p^T dout, ds = p (dout v^T - delta), dq = ds
// k / 8, dk = ds^T q / 8. dq and dk are rotated back, if their tokens were rotated.
//
// A block is one warpgroup; several on a multiprocessor overlap products with exponentials. A
// product with its left operand in registers is waited for only when these registers are needed
// again, which is after the next product has started.
#pragma once

#include "attention/hopper_tiles.cuh"

#ifdef WARPGROUP_PRODUCTS

namespace {

/// Shared memory: two tiles of the block's own and five that stream past; in the second kernel also
/// two stages of lse and delta.
constexpr int HOPPER_BACKWARD_Q_64_BYTES = 7 * TILE_BYTES;
constexpr int HOPPER_BACKWARD_KV_64_BYTES = 7 * TILE_BYTES + 2048;

/// Loads the warp's 16 rows, `width` apart in memory; those past `count` become zero.
template <int HALVES>
__device__ __forceinline__ void load_rows(uint4 (&rows)[HALVES][4], const bf16* from, int width, int count) {
    const Place at;
#pragma unroll
    for (int h = 0; h < HALVES; h++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = at.warp_row + 4 * i + at.lane / 8;
            rows[h][i] = {0, 0, 0, 0};
            if (row < count)
                rows[h][i] = *reinterpret_cast<const uint4*>(from + (long long)row * width + 64 * h + at.lane % 8 * 8);
        }
}

/// Computes delta of the warp's 16 rows of dout and writes it to memory. Returns that of the
/// thread's two rows. out: the warp's rows, from `load_rows`; delta: that of the tile's first row;
/// douts: tiles of 64 columns, `half` bytes apart.
template <int HALVES>
__device__ __forceinline__ float2 row_deltas(float* delta, const uint4 (&out)[HALVES][4], const unsigned char* douts, int half,
                                             int count) {
    const Place at;
    float sums[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = at.warp_row + 4 * i + at.lane / 8;
        sums[i] = 0.0f;
#pragma unroll
        for (int h = 0; h < HALVES; h++) {
            const uint4 dout = *reinterpret_cast<const uint4*>(douts + h * half + chunk_at(row, at.lane % 8));
            const unsigned left[4] = {out[h][i].x, out[h][i].y, out[h][i].z, out[h][i].w};
            const unsigned right[4] = {dout.x, dout.y, dout.z, dout.w};
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const float2 a = unpack(left[j]), b = unpack(right[j]);
                sums[i] += a.x * b.x + a.y * b.y;
            }
        }
#pragma unroll
        for (int bits = 4; bits > 0; bits /= 2) sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], bits);
        if (at.lane % 8 == 0 && row < count) delta[row] = sums[i];
    }
    // Lane 8 r has the sums of rows r, r + 4, r + 8 and r + 12.
#pragma unroll
    for (int i = 0; i < 4; i++) sums[i] = __shfl_sync(0xffffffffu, sums[i], at.g % 4 * 8);
    return at.g < 4 ? float2{sums[0], sums[2]} : float2{sums[1], sums[3]};
}

/// Computes dq of 64 queries of one head, over the keys up to the last query, and delta. dqkv like
/// qkv; dout, out: (b t, nh 64); lse, delta: (b, nh, t); rows at multiples of 16 bytes.
/// Grid: (t / 64 rounded up, nh, b); block: 128; shared: HOPPER_BACKWARD_Q_64_BYTES.
__device__ __forceinline__ void hopper_backward_q_64(bf16* dqkv, float* delta, const bf16* dout, const bf16* qkv, const bf16* out,
                                                  const float* lse, const Rotation& rotation, const Layout& l) {
    SHARED_TILES(tile_memory);
    unsigned char *queries = tile_memory, *douts = queries + TILE_BYTES;
    unsigned char *keys = douts + TILE_BYTES, *values = keys + 3 * TILE_BYTES;  // Three stages and two.
    // Tiles of keys are taken from last to first, so that the one to mask comes first.
    const int last_tile = int(gridDim.x - 1 - blockIdx.x), first_query = 64 * last_tile, count = l.positions - first_query;
    const int head = blockIdx.y, kv_head = head / l.group(), width = l.qkv_width();
    const long long row = (long long)blockIdx.z * l.positions + first_query, at_head = row * l.out_width() + head * 64;
    const long long statistics = ((long long)blockIdx.z * l.num_heads + head) * l.positions + first_query;
    // Each thread copies one chunk of every 16th row.
    const int copied_row = threadIdx.x / 8, copied_to = chunk_at(copied_row, threadIdx.x % 8);
    const int to_values = l.v_column(kv_head) - l.k_column(kv_head);
    const bf16* from = qkv + (row + copied_row) * width + l.k_column(kv_head) + threadIdx.x % 8 * 8;
    auto copy_keys = [&](int rows, int key_stage, int value_stage) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int to = copied_to + 16 * TILE_ROW * i, bytes = copied_row + 16 * i < rows ? 16 : 0;
            copy_async(keys + key_stage + to, from + (long long)(16 * i) * width, bytes);
            copy_async(values + value_stage + to, from + (long long)(16 * i) * width + to_values, bytes);
        }
        commit_copies();
        from -= 64ll * width;
    };
    copy_rows(queries, qkv + row * width + l.q_column(head), width, count);
    copy_rows(douts, dout + at_head, l.out_width(), count);
    copy_keys(count, 0, 0);
    if (last_tile > 0) copy_keys(64, TILE_BYTES, TILE_BYTES);
    const Place at;
    uint4 out_rows[1][4];
    load_rows(out_rows, out + at_head, l.out_width(), count);
    float row_lse[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int own = at.warp_row + at.g + 8 * half;
        row_lse[half] = own < count ? lse[statistics + own] * LOG2_E : 0.0f;
    }
    if (last_tile > 0) wait_copies<1>();
    else wait_copies<0>();
    publish_tiles();
    __syncthreads();
    const float2 row_delta = row_deltas(delta + statistics, out_rows, douts, 0, count);

    const float scale = LOG2_E / 8.0f;
    const unsigned long long query_tile = describe(queries), dout_tile = describe(douts);
    const unsigned long long key_tiles = describe(keys), value_tiles = describe(values);
    float dq[32], scores[32], ds[32];
    unsigned left[4][4];
#pragma unroll
    for (int i = 0; i < 32; i++) dq[i] = 0.0f;
    auto take_in = [&](unsigned long long key_tile, unsigned long long value_tile, bool masked, auto meanwhile) {
        hold(dq);
        fence_products();
        multiply_transposed(scores, query_tile, key_tile);
        wait_products<1>();
        hold(dq);
        hold(left);
        fence_products();
        multiply_transposed(ds, dout_tile, value_tile);
        meanwhile();
        wait_products<1>();
        hold(scores);
        if (masked) mask_diagonal<false>(scores);
#pragma unroll
        for (int i = 0; i < 32; i++) scores[i] = fast_exp2(scores[i] * scale - row_lse[i % 4 / 2]);
        hold(scores);
        wait_products<0>();
        hold(ds);
#pragma unroll
        for (int i = 0; i < 32; i++) ds[i] = scores[i] * (ds[i] - (i % 4 < 2 ? row_delta.x : row_delta.y));
        round_left(left, ds);
        hold(left);
        fence_products();
        add_product(dq, left, key_tile);
    };
    take_in(key_tiles, value_tiles, true, [] {});
    int key_stage = TILE_BYTES, value_stage = TILE_BYTES;
    for (int tile = last_tile - 1; tile >= 0; tile--) {
        wait_copies<0>();
        publish_tiles();
        __syncthreads();
        // All warps have read the keys of the last tile but one, and the values of the last tile.
        const int next_key_stage = key_stage == 2 * TILE_BYTES ? 0 : key_stage + TILE_BYTES;
        take_in(advance(key_tiles, key_stage), advance(value_tiles, value_stage), false, [&] {
            if (tile > 0) copy_keys(64, next_key_stage, value_stage ^ TILE_BYTES);
        });
        key_stage = next_key_stage;
        value_stage ^= TILE_BYTES;
    }
    wait_products<0>();
    hold(dq);
    hold(left);
    rotate_tile(dq, rotation, first_query, l);
    __syncthreads();
    write_tile(dqkv + row * width + l.q_column(head), width, count, queries, dq, {0.125f, 0.125f});
}

/// Computes dk and dv of 64 keys, over all queries from the first key on, for all heads of the
/// group. Scores are held transposed, (keys, queries). Arguments as above; delta is complete.
/// Grid: (t / 64 rounded up, nkv, b); block: 128; shared: HOPPER_BACKWARD_KV_64_BYTES.
__device__ __forceinline__ void hopper_backward_kv_64(bf16* dqkv, const float* delta, const bf16* dout, const bf16* qkv,
                                                   const float* lse, const Rotation& rotation, const Layout& l) {
    SHARED_TILES(tile_memory);
    unsigned char *keys = tile_memory, *values = keys + TILE_BYTES;
    unsigned char *queries = values + TILE_BYTES, *douts = queries + 3 * TILE_BYTES;  // Three stages and two.
    float* statistics = reinterpret_cast<float*>(douts + 2 * TILE_BYTES);             // Two stages of lse (80), delta (80).
    const int first_key = blockIdx.x * 64, kv_head = blockIdx.y, width = l.qkv_width();
    const int first_row = blockIdx.z * l.positions, end_head = (kv_head + 1) * l.group();

    // Each thread copies one chunk of every 16th row of queries and of dout, and one of lse and delta,
    // which passes through a register.
    const int copied_row = threadIdx.x / 8, copied_to = chunk_at(copied_row, threadIdx.x % 8);
    const int copied_statistic = threadIdx.x % 64;
    const bf16 *query_from, *dout_from;
    const float* statistic_from;
    auto begin_head = [&](int head) {
        const long long row = first_row + first_key;
        query_from = qkv + (row + copied_row) * width + head * 64 + threadIdx.x % 8 * 8;
        dout_from = dout + (row + copied_row) * l.out_width() + head * 64 + threadIdx.x % 8 * 8;
        statistic_from = (threadIdx.x < 64 ? lse : delta) + ((long long)blockIdx.z * l.num_heads + head) * l.positions + first_key +
                         copied_statistic;
    };
    auto copy_queries = [&](int query, int query_stage, int stage) {
        const int count = l.positions - query;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int to = copied_to + 16 * TILE_ROW * i, bytes = copied_row + 16 * i < count ? 16 : 0;
            copy_async(queries + query_stage + to, query_from + (long long)(16 * i) * width, bytes);
            copy_async(douts + stage * TILE_BYTES + to, dout_from + (long long)(16 * i) * l.out_width(), bytes);
        }
        commit_copies();
        const float statistic = copied_statistic < count ? *statistic_from : 0.0f;
        query_from += 64ll * width;
        dout_from += 64ll * l.out_width();
        statistic_from += 64;
        return statistic;
    };
    auto put_statistic = [&](float statistic, int stage) {
        const Place at;
        const int own = at.warp_row % 32 * 2 + at.lane;
        // The statistics of a thread's columns lie together.
        statistics[stage * 160 + at.warp_row / 32 * 80 + own % 8 / 2 * 20 + own / 8 * 2 + own % 2] =
            statistic * (at.warp_row < 32 ? LOG2_E : 1.0f);
    };
    const bf16* own_rows = qkv + (long long)(first_row + first_key) * width;
    copy_rows(keys, own_rows + l.k_column(kv_head), width, l.positions - first_key);
    copy_rows(values, own_rows + l.v_column(kv_head), width, l.positions - first_key);
    int head = kv_head * l.group(), query = first_key, query_stage = 0, stage = 0;
    begin_head(head);
    put_statistic(copy_queries(query, 0, 0), 0);

    const float scale = LOG2_E / 8.0f;
    const unsigned long long key_tile = describe(keys);
    float dk[32], dv[32], scores[32], ds[32];
    unsigned p[4][4], left[4][4];
#pragma unroll
    for (int i = 0; i < 32; i++) dk[i] = dv[i] = 0.0f;
    bool more;
    do {
        wait_copies<0>();
        publish_tiles();
        __syncthreads();
        const unsigned long long query_tile = advance(key_tile, 2 * TILE_BYTES + query_stage);
        const unsigned long long dout_tile = advance(key_tile, (5 + stage) * TILE_BYTES);
        const float4* row_lse = reinterpret_cast<const float4*>(statistics + stage * 160 + Place().t * 20);
        const bool masked = query == first_key;
        // All warps have read the queries of the last tile but one, and dout, lse and delta of the
        // last tile.
        query += 64;
        if (query >= l.positions) {
            query = first_key;
            begin_head(++head);
        }
        query_stage = query_stage == 2 * TILE_BYTES ? 0 : query_stage + TILE_BYTES;
        stage ^= 1;
        more = head < end_head;
        hold(dk);
        hold(dv);
        fence_products();
        multiply_transposed(scores, key_tile, query_tile);
        wait_products<1>();
        hold(dk);
        hold(left);
        fence_products();
        multiply_transposed(ds, advance(key_tile, TILE_BYTES), dout_tile);
        float statistic = 0.0f;
        if (more) statistic = copy_queries(query, query_stage, stage);
        wait_products<1>();
        hold(scores);
        // Queries past the end are zero, and so are their lse and delta.
        if (masked) mask_diagonal<true>(scores);
#pragma unroll
        for (int n = 0; n < 4; n++) {
            const float4 lses = row_lse[n];
#pragma unroll
            for (int i = 8 * n; i < 8 * n + 8; i++)
                scores[i] = fast_exp2(scores[i] * scale - (i % 8 < 4 ? (i % 2 == 0 ? lses.x : lses.y) : (i % 2 == 0 ? lses.z : lses.w)));
        }
        round_left(p, scores);
        hold(p);
        fence_products();
        add_product(dv, p, dout_tile);
        wait_products<1>();
        hold(ds);
#pragma unroll
        for (int n = 0; n < 4; n++) {
            const float4 deltas = row_lse[20 + n];
#pragma unroll
            for (int i = 8 * n; i < 8 * n + 8; i += 2) {
                // The rounded probabilities, which take half the registers.
                const float2 probability = unpack(p[i / 8][i % 8 / 2]);
                ds[i] = probability.x * (ds[i] - (i % 8 < 4 ? deltas.x : deltas.z));
                ds[i + 1] = probability.y * (ds[i + 1] - (i % 8 < 4 ? deltas.y : deltas.w));
            }
        }
        round_left(left, ds);
        hold(left);
        fence_products();
        add_product(dk, left, query_tile);
        put_statistic(statistic, stage);
        wait_products<1>();
        hold(dv);
        hold(p);
    } while (more);
    wait_products<0>();
    hold(dk);
    hold(left);
    __syncthreads();
    rotate_tile(dk, rotation, first_key, l);
    bf16* to = dqkv + (long long)(first_row + first_key) * width;
    write_tile(to + l.k_column(kv_head), width, l.positions - first_key, keys, dk, {0.125f, 0.125f});
    write_tile(to + l.v_column(kv_head), width, l.positions - first_key, values, dv, {1.0f, 1.0f});
}

}  // namespace

#endif
