// Causal attention forward with the matrix instructions of Hopper's warpgroups, for heads of 128.
// The scheme is that for heads of 64, but a block has three warpgroups, as many as a
// multiprocessor's registers hold, and queries stay in shared memory.
#pragma once

#include "attention/hopper_forward.cuh"

#ifdef WARPGROUP_PRODUCTS

namespace {

/// Bytes of one half of the columns of a block's queries, and of 128 keys.
constexpr int QUERIES_HALF = 3 * TILE_BYTES, KEYS_HALF = 2 * TILE_BYTES;
/// Queries, two stages of 128 keys and three of values.
constexpr int HOPPER_FORWARD_128_BYTES = 2 * QUERIES_HALF + 5 * 2 * KEYS_HALF;

/// Computes out and lse of 192 queries of one head. out: (b t, nh 128); lse: (b, nh, t); qkv: (b t,
/// (nh + 2 nkv) 128); rows at multiples of 16 bytes.
/// Grid: (t / 192 rounded up, nh, b); block: 384; shared: HOPPER_FORWARD_128_BYTES.
__device__ __forceinline__ void hopper_forward_128(bf16* out, float* lse, const bf16* qkv, const Layout& l) {
    SHARED_TILES(tile_memory);
    const Share share;
    // The shuffle tells the compiler that the group is the same for the whole warp.
    const int group = __shfl_sync(0xffffffffu, int(threadIdx.x / 128), 0);
    const int head = share.head, kv_head = head / l.group(), width = l.qkv_width();
    unsigned char *keys = tile_memory + 2 * QUERIES_HALF, *values = keys + 4 * KEYS_HALF;
    // Blocks take tiles of 64 queries from the last one backwards, so that only a block with few
    // keys may lack queries. Tiles of keys are taken from last to first, so that the one to mask
    // comes first.
    const int last_tile = (l.positions + 63) / 64 - 1 - 3 * share.tile, own_tile = last_tile - 2 + group;
    const int first_query = 64 * (last_tile - 2), last_pair = last_tile / 2;

    // Each thread copies one chunk of every 24th row.
    const int copied_row = threadIdx.x / 16;
    const int half_row = threadIdx.x % 16 / 8, copied_at = chunk_at(copied_row, threadIdx.x % 8);
    const long long apart = 24ll * width;
    const int to_values = l.v_column(kv_head) - l.k_column(kv_head);
    const bf16* from = qkv + (long long)share.sequence * l.positions * width + threadIdx.x % 16 * 8;
    {
        const long long row = first_query + copied_row;
        const bf16* queries_from = from + row * width + l.q_column(head);
        unsigned char* to = tile_memory + half_row * QUERIES_HALF + copied_at;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const bool inside = row + 24 * i >= 0 && row + 24 * i < l.positions;
            copy_async(to + 24 * TILE_ROW * i, inside ? queries_from + i * apart : qkv, inside ? 16 : 0);
        }
    }
    from += (128ll * last_pair + copied_row) * width + l.k_column(kv_head);
    unsigned char* copied_to = keys + half_row * KEYS_HALF + copied_at;
    auto copy_pair = [&](int key_stage, int value_stage, int count) {
#pragma unroll
        for (int i = 0; i < 6; i++) {
            if (i == 5 && copied_row >= 8) break;
            const bool inside = copied_row + 24 * i < count;
            const bf16* row = inside ? from + i * apart : qkv;
            copy_async(copied_to + key_stage + 24 * TILE_ROW * i, row, inside ? 16 : 0);
            copy_async(copied_to + 4 * KEYS_HALF + value_stage + 24 * TILE_ROW * i, inside ? row + to_values : qkv, inside ? 16 : 0);
        }
        commit_copies();
        from -= 128ll * width;
    };
    copy_pair(0, 0, l.positions - 128 * last_pair);

    const unsigned long long query_tile = advance(describe(tile_memory), group * TILE_BYTES);
    const unsigned long long key_tiles = describe(keys), value_tiles = describe(values);
    const float scale = LOG2_E * HEAD_128_SCALE;
    float left[32], right[32], scores[32];
    unsigned p[4][4];
    RunningRows rows = {{-INFINITY, -INFINITY}, {0.0f, 0.0f}};
#pragma unroll
    for (int i = 0; i < 32; i++) left[i] = right[i] = 0.0f;

    auto begin = [&](unsigned long long key_tile) {
        hold(scores);
        fence_products();
        multiply_transposed(scores, query_tile, key_tile, QUERIES_HALF, KEYS_HALF);
        wait_products<0>();
        hold(scores);
        // A query's own key is among these, so no row's maximum is -infinity.
        mask_diagonal<false>(scores);
        rows.take_in(scores, scale);
        round_left(p, scores);
    };
    // Takes in 64 keys, and the values of the 64 keys before them.
    auto take_in = [&](unsigned long long key_tile, unsigned long long values_before) {
        hold(left);
        hold(right);
        hold(p);
        fence_products();
        multiply_transposed(scores, query_tile, key_tile, QUERIES_HALF, KEYS_HALF);
        add_product(left, right, p, values_before, KEYS_HALF);
        wait_products<1>();
        hold(scores);
        const float2 factor = rows.take_in(scores, scale);
        hold(scores);
        wait_products<0>();
        hold(left);
        hold(right);
        hold(p);
#pragma unroll
        for (int i = 0; i < 32; i++) {
            left[i] *= i % 4 < 2 ? factor.x : factor.y;
            right[i] *= i % 4 < 2 ? factor.x : factor.y;
        }
        round_left(p, scores);
    };

    unsigned long long values_before = value_tiles;
    int key_stage = 0, value_stage = 0;
    for (int pair = last_pair; pair >= 0; pair--) {
        wait_copies<0>();
        publish_tiles();
        __syncthreads();
        // All warps have read the previous keys, and all values but those of the last 64 of them.
        const int next_value_stage = value_stage == 4 * KEYS_HALF ? 0 : value_stage + 2 * KEYS_HALF;
        if (pair > 0) copy_pair(key_stage ^ 2 * KEYS_HALF, next_value_stage, 128);
#pragma unroll
        for (int odd = 1; odd >= 0; odd--) {
            const int tile = 2 * pair + odd;
            const unsigned long long key_tile = advance(key_tiles, key_stage + odd * TILE_BYTES);
            if (tile > own_tile) continue;
            if (tile == own_tile) begin(key_tile);
            else take_in(key_tile, values_before);
            values_before = advance(value_tiles, value_stage + odd * TILE_BYTES);
        }
        key_stage ^= 2 * KEYS_HALF;
        value_stage = next_value_stage;
    }
    if (own_tile >= 0) {
        hold(left);
        hold(right);
        hold(p);
        fence_products();
        add_product(left, right, p, values_before, KEYS_HALF);
        wait_products<0>();
        hold(left);
        hold(right);
    }
    // No warp reads queries from here on.
    __syncthreads();
    if (own_tile < 0) return;

    const Place at;
    const int own_query = 64 * own_tile, count = l.positions - own_query;
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float total = rows.total[half];
        total += __shfl_xor_sync(0xffffffffu, total, 1);
        total += __shfl_xor_sync(0xffffffffu, total, 2);
        inverse[half] = 1.0f / total;
        const int row = at.warp_row + at.g + 8 * half;
        if (at.t == 0 && row < count)
            lse[((long long)share.sequence * l.num_heads + head) * l.positions + own_query + row] =
                (rows.largest[half] + log2f(total)) / LOG2_E;
    }
    bf16* to = out + ((long long)share.sequence * l.positions + own_query) * l.out_width() + head * 128;
    unsigned char* own_rows = tile_memory + group * TILE_BYTES;
    write_tile(to, l.out_width(), count, own_rows, left, {inverse[0], inverse[1]});
    write_tile(to + 64, l.out_width(), count, own_rows + QUERIES_HALF, right, {inverse[0], inverse[1]});
}

}  // namespace

#endif
