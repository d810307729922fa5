// Causal attention backward with the matrix instructions of Hopper's warpgroups, for heads of 128.
// The scheme is that for heads of 64, but a block has as many warpgroups as a multiprocessor's
// registers hold, three for dq and two for dk and dv. They share the tiles that stream past.
#pragma once

#include "attention/hopper_backward.cuh"

#ifdef WARPGROUP_PRODUCTS

namespace {

/// Bytes of 64 rows of a head.
constexpr int HEAD_TILE = 2 * TILE_BYTES;
/// 192 queries and their dout, three stages of keys and two of values.
constexpr int HOPPER_BACKWARD_Q_128_BYTES = 11 * HEAD_TILE;
/// 128 keys and values, three stages of queries and two of dout, lse and delta.
constexpr int HOPPER_BACKWARD_KV_128_BYTES = 9 * HEAD_TILE + 2048;

/// Computes dq of 192 queries of one head, and delta. Arguments as for `hopper_backward_q_64`.
/// Grid: (t / 192 rounded up, nh, b); block: 384; shared: HOPPER_BACKWARD_Q_128_BYTES.
__device__ __forceinline__ void hopper_backward_q_128(bf16* dqkv, float* delta, const bf16* dout, const bf16* qkv, const bf16* out,
                                                      const float* lse, const Rotation& rotation, const Layout& l) {
    constexpr int HALF = 3 * TILE_BYTES;
    SHARED_TILES(tile_memory);
    const Share share;
    unsigned char *queries = tile_memory, *douts = queries + 2 * HALF;
    unsigned char* keys = douts + 2 * HALF;  // Three stages, then two of values.
    // The shuffle tells the compiler that the group is the same for the whole warp.
    const int group = __shfl_sync(0xffffffffu, int(threadIdx.x / 128), 0);
    // Blocks take tiles of 64 queries from the last one backwards, so that only a block with few
    // keys may lack queries. Tiles of keys are taken from last to first, so that the one to mask
    // comes first.
    const int last_tile = (l.positions + 63) / 64 - 1 - 3 * share.tile, own_tile = last_tile - 2 + group;
    const int own_query = 64 * own_tile, count = own_tile < 0 ? 0 : l.positions - own_query;
    const int head = share.head, kv_head = head / l.group(), width = l.qkv_width();
    const long long row = (long long)share.sequence * l.positions + own_query, at_head = row * l.out_width() + head * 128;
    const long long statistics = ((long long)share.sequence * l.num_heads + head) * l.positions + own_query;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int to = h * HALF + group * TILE_BYTES;
        copy_rows(queries + to, count > 0 ? qkv + row * width + l.q_column(head) + 64 * h : qkv, width, count);
        copy_rows(douts + to, count > 0 ? dout + at_head + 64 * h : dout, l.out_width(), count);
    }
    // Each thread copies one chunk of every 24th row.
    const int copied_row = threadIdx.x / 16;
    unsigned char* copied_to = keys + threadIdx.x % 16 / 8 * TILE_BYTES + chunk_at(copied_row, threadIdx.x % 8);
    const int to_values = l.v_column(kv_head) - l.k_column(kv_head);
    const bf16* from = qkv + ((long long)share.sequence * l.positions + 64 * last_tile + copied_row) * width + l.k_column(kv_head) +
                       threadIdx.x % 16 * 8;
    auto copy_keys = [&](int rows, int key_stage, int value_stage) {
#pragma unroll
        for (int i = 0; i < 3; i++) {
            if (i == 2 && copied_row >= 16) break;
            const bool inside = copied_row + 24 * i < rows;
            const bf16* row = inside ? from + (long long)(24 * i) * width : qkv;
            unsigned char* to = copied_to + 24 * TILE_ROW * i;
            copy_async(to + key_stage, row, inside ? 16 : 0);
            copy_async(to + 3 * HEAD_TILE + value_stage, inside ? row + to_values : qkv, inside ? 16 : 0);
        }
        commit_copies();
        from -= 64ll * width;
    };
    copy_keys(l.positions - 64 * last_tile, 0, 0);
    const Place at;
    uint4 out_rows[2][4];
    load_rows(out_rows, out + at_head, l.out_width(), count);
    float row_lse[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int own = at.warp_row + at.g + 8 * half;
        row_lse[half] = own < count ? lse[statistics + own] * LOG2_E : 0.0f;
    }
    wait_copies<0>();
    publish_tiles();
    __syncthreads();
    const float2 row_delta = row_deltas(delta + statistics, out_rows, douts + group * TILE_BYTES, HALF, count);

    const float scale = LOG2_E * HEAD_128_SCALE;
    const unsigned long long query_tile = advance(describe(queries), group * TILE_BYTES), dout_tile = advance(query_tile, 2 * HALF);
    const unsigned long long key_tiles = describe(keys);
    float dq_left[32], dq_right[32], scores[32], ds[32];
    unsigned left[4][4];
#pragma unroll
    for (int i = 0; i < 32; i++) dq_left[i] = dq_right[i] = 0.0f;
    int key_stage = 0, value_stage = 0;
    for (int tile = last_tile; tile >= 0; tile--) {
        if (tile < last_tile) {
            wait_copies<0>();
            publish_tiles();
            __syncthreads();
        }
        // All warps have read the keys of the last tile but one, and the values of the last tile.
        const int next_key_stage = key_stage == 2 * HEAD_TILE ? 0 : key_stage + HEAD_TILE;
        const unsigned long long key_tile = advance(key_tiles, key_stage);
        const unsigned long long value_tile = advance(key_tiles, 3 * HEAD_TILE + value_stage);
        if (tile > own_tile) {
            if (tile > 0) copy_keys(64, next_key_stage, value_stage ^ HEAD_TILE);
        } else {
            hold(dq_left);
            hold(dq_right);
            fence_products();
            multiply_transposed(scores, query_tile, key_tile, HALF, TILE_BYTES);
            wait_products<1>();
            hold(dq_left);
            hold(dq_right);
            hold(left);
            fence_products();
            multiply_transposed(ds, dout_tile, value_tile, HALF, TILE_BYTES);
            if (tile > 0) copy_keys(64, next_key_stage, value_stage ^ HEAD_TILE);
            wait_products<1>();
            hold(scores);
            if (tile == own_tile) mask_diagonal<false>(scores);
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
            add_product(dq_left, dq_right, left, key_tile, TILE_BYTES);
        }
        key_stage = next_key_stage;
        value_stage ^= HEAD_TILE;
    }
    wait_products<0>();
    hold(dq_left);
    hold(dq_right);
    hold(left);
    __syncthreads();
    if (own_tile < 0) return;
    rotate_tile(dq_left, rotation, own_query, l);
    rotate_tile(dq_right, rotation, own_query, l, 64);
    bf16* to = dqkv + row * width + l.q_column(head);
    unsigned char* own_rows = queries + group * TILE_BYTES;
    write_tile(to, width, count, own_rows, dq_left, {HEAD_128_SCALE, HEAD_128_SCALE});
    write_tile(to + 64, width, count, own_rows + HALF, dq_right, {HEAD_128_SCALE, HEAD_128_SCALE});
}

/// Computes dk and dv of 128 keys. Arguments as for `hopper_backward_kv_64`.
/// Grid: (t / 128 rounded up, nkv, b); block: 256; shared: HOPPER_BACKWARD_KV_128_BYTES.
__device__ __forceinline__ void hopper_backward_kv_128(bf16* dqkv, const float* delta, const bf16* dout, const bf16* qkv,
                                                       const float* lse, const Rotation& rotation, const Layout& l) {
    SHARED_TILES(tile_memory);
    const Share share;
    // Keys and values: halves of 64 columns, each of 128 rows. Three stages of queries, two of dout.
    unsigned char *keys = tile_memory, *values = keys + 2 * HEAD_TILE;
    unsigned char *queries = values + 2 * HEAD_TILE, *douts = queries + 3 * HEAD_TILE;
    float* statistics = reinterpret_cast<float*>(douts + 2 * HEAD_TILE);  // Two stages of lse (80), delta (80).
    const int group = __shfl_sync(0xffffffffu, int(threadIdx.x / 128), 0);
    const int first_key = share.tile * 128, own_key = first_key + 64 * group, kv_head = share.head, width = l.qkv_width();
    const int first_row = share.sequence * l.positions, end_head = (kv_head + 1) * l.group();

    // Each thread copies one chunk of every 16th row of queries and of dout; the first 128 threads copy
    // one of lse and delta each, which passes through a register.
    const int copied_row = threadIdx.x / 16, copied_statistic = threadIdx.x % 64;
    unsigned char* copied_to = queries + threadIdx.x % 16 / 8 * TILE_BYTES + chunk_at(copied_row, threadIdx.x % 8);
    const bf16 *query_from, *dout_from;
    const float* statistic_from;
    auto begin_head = [&](int head) {
        const long long row = first_row + first_key;
        query_from = qkv + (row + copied_row) * width + head * 128 + threadIdx.x % 16 * 8;
        dout_from = dout + (row + copied_row) * l.out_width() + head * 128 + threadIdx.x % 16 * 8;
        statistic_from = (threadIdx.x < 64 ? lse : delta) + ((long long)share.sequence * l.num_heads + head) * l.positions + first_key +
                         copied_statistic;
    };
    auto copy_queries = [&](int query, int query_stage, int stage) {
        const int count = l.positions - query;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int bytes = copied_row + 16 * i < count ? 16 : 0;
            unsigned char* to = copied_to + 16 * TILE_ROW * i;
            copy_async(to + query_stage, query_from + (long long)(16 * i) * width, bytes);
            copy_async(to + (3 + stage) * HEAD_TILE, dout_from + (long long)(16 * i) * l.out_width(), bytes);
        }
        commit_copies();
        const float statistic = group == 0 && copied_statistic < count ? *statistic_from : 0.0f;
        query_from += 64ll * width;
        dout_from += 64ll * l.out_width();
        statistic_from += 64;
        return statistic;
    };
    auto put_statistic = [&](float statistic, int stage) {
        if (group > 0) return;
        const Place at;
        const int own = at.warp_row % 32 * 2 + at.lane;
        // The statistics of a thread's columns lie together.
        statistics[stage * 160 + at.warp_row / 32 * 80 + own % 8 / 2 * 20 + own / 8 * 2 + own % 2] =
            statistic * (at.warp_row < 32 ? LOG2_E : 1.0f);
    };
    const bf16* own_rows = qkv + (long long)(first_row + own_key) * width;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int to = h * HEAD_TILE + group * TILE_BYTES;
        copy_rows(keys + to, own_rows + l.k_column(kv_head) + 64 * h, width, l.positions - own_key);
        copy_rows(values + to, own_rows + l.v_column(kv_head) + 64 * h, width, l.positions - own_key);
    }
    int head = kv_head * l.group(), query = first_key, query_stage = 0, stage = 0;
    begin_head(head);
    put_statistic(copy_queries(query, 0, 0), 0);

    const float scale = LOG2_E * HEAD_128_SCALE;
    const unsigned long long tiles = describe(tile_memory), key_tile = advance(tiles, group * TILE_BYTES);
    float dk_left[32], dk_right[32], dv_left[32], dv_right[32], scores[32], ds[32];
    unsigned p[4][4], left[4][4];
#pragma unroll
    for (int i = 0; i < 32; i++) dk_left[i] = dk_right[i] = dv_left[i] = dv_right[i] = 0.0f;
    bool more;
    do {
        wait_copies<0>();
        publish_tiles();
        __syncthreads();
        const unsigned long long query_tile = advance(tiles, 4 * HEAD_TILE + query_stage);
        const unsigned long long dout_tile = advance(tiles, (7 + stage) * HEAD_TILE);
        const float4* row_lse = reinterpret_cast<const float4*>(statistics + stage * 160 + Place().t * 20);
        const bool masked = query == own_key, takes_part = query >= own_key;
        // All warps have read the queries of the last tile but one, and dout, lse and delta of the
        // last tile.
        query += 64;
        if (query >= l.positions) {
            query = first_key;
            begin_head(++head);
        }
        query_stage = query_stage == 2 * HEAD_TILE ? 0 : query_stage + HEAD_TILE;
        stage ^= 1;
        more = head < end_head;
        float statistic = 0.0f;
        if (!takes_part) {
            // The products of the previous head: its queries are overwritten before this warp waits
            // again.
            wait_products<0>();
            if (more) statistic = copy_queries(query, query_stage, stage);
            put_statistic(statistic, stage);
            continue;
        }
        hold(dk_left);
        hold(dk_right);
        hold(dv_left);
        hold(dv_right);
        fence_products();
        multiply_transposed(scores, key_tile, query_tile, HEAD_TILE, TILE_BYTES);
        wait_products<1>();
        hold(dk_left);
        hold(dk_right);
        hold(left);
        fence_products();
        multiply_transposed(ds, advance(key_tile, 2 * HEAD_TILE), dout_tile, HEAD_TILE, TILE_BYTES);
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
        add_product(dv_left, dv_right, p, dout_tile, TILE_BYTES);
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
        add_product(dk_left, dk_right, left, query_tile, TILE_BYTES);
        put_statistic(statistic, stage);
        wait_products<1>();
        hold(dv_left);
        hold(dv_right);
        hold(p);
    } while (more);
    wait_products<0>();
    hold(dk_left);
    hold(dk_right);
    hold(left);
    __syncthreads();
    rotate_tile(dk_left, rotation, own_key, l);
    rotate_tile(dk_right, rotation, own_key, l, 64);
    const int count = l.positions - own_key;
    bf16* to = dqkv + (long long)(first_row + own_key) * width;
    unsigned char *own_keys = keys + group * TILE_BYTES, *own_values = values + group * TILE_BYTES;
    write_tile(to + l.k_column(kv_head), width, count, own_keys, dk_left, {HEAD_128_SCALE, HEAD_128_SCALE});
    write_tile(to + l.k_column(kv_head) + 64, width, count, own_keys + HEAD_TILE, dk_right, {HEAD_128_SCALE, HEAD_128_SCALE});
    write_tile(to + l.v_column(kv_head), width, count, own_values, dv_left, {1.0f, 1.0f});
    write_tile(to + l.v_column(kv_head) + 64, width, count, own_values + HEAD_TILE, dv_right, {1.0f, 1.0f});
}

}  // namespace

#endif
