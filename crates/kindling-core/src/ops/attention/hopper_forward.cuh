// Causal attention forward with the matrix instructions of Hopper's warpgroups, for heads of 64,
// after FlashAttention-3 (https://arxiv.org/abs/2407.08608): while the probabilities of 64 keys are
// computed, the product of the previous ones with their values runs.
#pragma once

#include "attention/hopper_tiles.cuh"

#ifdef WARPGROUP_PRODUCTS

namespace {

/// Bytes of 128 rows: the queries of a block, 64 for each of its two warpgroups, and the keys in
/// shared memory at a time.
constexpr int PAIR_BYTES = 2 * TILE_BYTES;
/// Queries, two stages of keys and three of values.
constexpr int HOPPER_FORWARD_64_BYTES = 6 * PAIR_BYTES;

/// Maxima and sums of the exponentials of a thread's two rows. `largest` is scaled.
struct RunningRows {
    float largest[2], total[2];

    /// Replaces scores by their exponentials and adds them to the sums. Returns the factors by
    /// which earlier exponentials shrink.
    __device__ __forceinline__ float2 take_in(float (&scores)[32], float scale) {
        float factor[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = fmaxf(scores[2 * half], scores[2 * half + 1]);
#pragma unroll
            for (int i = 4; i < 32; i += 4) most = fmaxf(most, fmaxf(scores[i + 2 * half], scores[i + 2 * half + 1]));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
            const float before = largest[half];
            largest[half] = fmaxf(before, most * scale);
            factor[half] = fast_exp2(before - largest[half]);
            total[half] *= factor[half];
        }
#pragma unroll
        for (int i = 0; i < 32; i++) {
            scores[i] = fast_exp2(scores[i] * scale - largest[i % 4 / 2]);
            total[i % 4 / 2] += scores[i];
        }
        return {factor[0], factor[1]};
    }
};

/// Computes out and lse of 128 queries of one head. out: (b t, nh 64); lse: (b, nh, t); qkv: (b t,
/// (nh + 2 nkv) 64); rows at multiples of 16 bytes.
/// Grid: (t / 128 rounded up, nh, b); block: 256; shared: HOPPER_FORWARD_64_BYTES.
__device__ __forceinline__ void hopper_forward_64(bf16* out, float* lse, const bf16* qkv, const Layout& l) {
    SHARED_TILES(tile_memory);
    // The shuffle tells the compiler that the group is the same for the whole warp.
    const int group = __shfl_sync(0xffffffffu, int(threadIdx.x / 128), 0);
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int head = blockIdx.y, kv_head = head / l.group(), width = l.qkv_width();
    // Tiles of keys are taken from last to first, so that the one to mask comes first.
    const int last_tile = int(gridDim.x - 1 - blockIdx.x), first_query = last_tile * 128;
    unsigned char *keys = tile_memory + PAIR_BYTES, *values = keys + 2 * PAIR_BYTES;

    // Each thread copies one chunk of every 32nd row.
    const int copied_row = threadIdx.x / 8, copied_at = chunk_at(copied_row, threadIdx.x % 8);
    const long long apart = 32ll * width;
    const int to_values = l.v_column(kv_head) - l.k_column(kv_head);
    const bf16* from = qkv + ((long long)blockIdx.z * l.positions + first_query + copied_row) * width + threadIdx.x % 8 * 8;
    const bf16* queries_from = from + l.q_column(head);
    from += l.k_column(kv_head);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int to = copied_at + 32 * TILE_ROW * i, bytes = first_query + copied_row + 32 * i < l.positions ? 16 : 0;
        copy_async(tile_memory + to, bytes > 0 ? queries_from + i * apart : qkv, bytes);
        copy_async(keys + to, bytes > 0 ? from + i * apart : qkv, bytes);
        copy_async(values + to, bytes > 0 ? from + i * apart + to_values : qkv, bytes);
    }
    commit_copies();
    auto copy_next_tile = [&](int key_stage, int value_stage) {
        from -= 4 * apart;
#pragma unroll
        for (int i = 0; i < 4; i++) copy_async(keys + key_stage + copied_at + 32 * TILE_ROW * i, from + i * apart, 16);
#pragma unroll
        for (int i = 0; i < 4; i++)
            copy_async(values + value_stage + copied_at + 32 * TILE_ROW * i, from + i * apart + to_values, 16);
        commit_copies();
    };
    if (last_tile > 0) {
        copy_next_tile(PAIR_BYTES, PAIR_BYTES);
        wait_copies<1>();
    } else {
        wait_copies<0>();
    }
    publish_tiles();
    __syncthreads();

    const int warp_row = threadIdx.x / 32 % 4 * 16, own_query = first_query + 64 * group;
    unsigned char* own_rows = tile_memory + group * TILE_BYTES;
    const unsigned long long key_tiles = describe(keys), value_tiles = describe(values);
    const float scale = LOG2_E / 8.0f;
    float sums[32], scores[32];
    unsigned q[4][4], p[4][4];
    RunningRows rows = {{-INFINITY, -INFINITY}, {0.0f, 0.0f}};
#pragma unroll
    for (int i = 0; i < 32; i++) sums[i] = 0.0f;
#pragma unroll
    for (int k = 0; k < 4; k++) load_matrices<false>(q[k], own_rows + chunk_at(warp_row + lane % 16, 2 * k + lane / 16));

    // Takes in 64 keys, and the values of the 64 keys before them.
    auto take_in = [&](unsigned long long key_tile, unsigned long long values_before) {
        hold(sums);
        hold(p);
        fence_products();
        multiply_transposed(scores, q, key_tile);
        add_product(sums, p, values_before);
        wait_products<1>();
        hold(scores);
        const float2 factor = rows.take_in(scores, scale);
        hold(scores);
        wait_products<0>();
        hold(sums);
        hold(p);
#pragma unroll
        for (int i = 0; i < 32; i++) sums[i] *= i % 4 < 2 ? factor.x : factor.y;
        round_left(p, scores);
    };

    fence_products();
    multiply_transposed(scores, q, advance(key_tiles, group * TILE_BYTES));
    wait_products<0>();
    hold(scores);
    // A query's own key is among these, so no row's maximum is -infinity.
    mask_diagonal<false>(scores);
    rows.take_in(scores, scale);
    round_left(p, scores);
    unsigned long long values_before = advance(value_tiles, group * TILE_BYTES);
    if (group == 1) {
        take_in(key_tiles, values_before);
        values_before = value_tiles;
    }
    int key_stage = PAIR_BYTES, value_stage = PAIR_BYTES;
    for (int tile = 1; tile <= last_tile; tile++) {
        wait_copies<0>();
        publish_tiles();
        __syncthreads();
        // All warps have read the previous keys, and all values but those of the last 64 of them.
        const int next_value_stage = value_stage == 2 * PAIR_BYTES ? 0 : value_stage + PAIR_BYTES;
        if (tile < last_tile) copy_next_tile(key_stage ^ PAIR_BYTES, next_value_stage);
        take_in(advance(key_tiles, key_stage + TILE_BYTES), values_before);
        values_before = advance(value_tiles, value_stage + TILE_BYTES);
        take_in(advance(key_tiles, key_stage), values_before);
        values_before = advance(value_tiles, value_stage);
        key_stage ^= PAIR_BYTES;
        value_stage = next_value_stage;
    }
    hold(sums);
    hold(p);
    fence_products();
    add_product(sums, p, values_before);
    wait_products<0>();
    hold(sums);

    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float total = rows.total[half];
        total += __shfl_xor_sync(0xffffffffu, total, 1);
        total += __shfl_xor_sync(0xffffffffu, total, 2);
        inverse[half] = 1.0f / total;
        const int query = own_query + warp_row + g + 8 * half;
        if (t == 0 && query < l.positions)
            lse[((long long)blockIdx.z * l.num_heads + head) * l.positions + query] =
                (rows.largest[half] + log2f(total)) / LOG2_E;
    }
    // Only this warp reads its queries, which are in registers by now, so its rows of the result
    // can reuse their memory.
    bf16* to = out + ((long long)blockIdx.z * l.positions + own_query) * l.out_width() + head * 64;
    write_tile(to, l.out_width(), l.positions - own_query, own_rows, sums, {inverse[0], inverse[1]});
}

}  // namespace

#endif
