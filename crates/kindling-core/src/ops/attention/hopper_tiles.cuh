// Building blocks of attention's kernels for Hopper: tiles of 64 rows and 64 columns, and products
// of a warpgroup over them. Elements 4 n to 4 n + 3 of a thread's accumulators are those of `mma`
// in columns 8 n to 8 n + 7 of the warp's 16 rows.
#pragma once

#include "attention/tensor_tiles.cuh"
#include "kernels/warpgroup.cuh"

#ifdef WARPGROUP_PRODUCTS

namespace {

constexpr int TILE_BYTES = 64 * TILE_ROW;
/// Factor of the scores of heads of 128.
constexpr float HEAD_128_SCALE = 0.08838834764831845f;

/// The tile and the head that a block of a grid (tiles, heads, batch) takes. Tile 0 takes longest.
/// Blocks start in the order of their numbers; if they took tiles head by head, the long tiles of
/// the last heads would end long after all others. So the blocks of a group of heads take tile 0 of
/// each head first, then tile 1 of each. A group is small enough that the L2 cache holds its keys
/// and values.
struct Share {
    static constexpr int GROUPED_HEADS = 48;
    int tile, head, sequence;
    __device__ __forceinline__ Share() {
        const int tiles = gridDim.x, heads = gridDim.y * gridDim.z;
        const int number = blockIdx.x + tiles * (blockIdx.y + gridDim.y * blockIdx.z);
        const int groups = heads < 2 * GROUPED_HEADS ? 1 : heads / GROUPED_HEADS, most = (heads + groups - 1) / groups;
        const int first = number / (tiles * most) * most, count = heads - first < most ? heads - first : most;
        const int own = number - first * tiles;
        tile = own / count;
        head = (first + own % count) % gridDim.y;
        sequence = (first + own % count) / gridDim.y;
    }
};

/// A thread's place in the accumulators: rows g and g + 8 of the warp's, columns 2 t and 2 t + 1.
/// Computed anew at each use, so that the compiler does not keep it in registers.
struct Place {
    int warp_row, lane, g, t;
    __device__ __forceinline__ Place() {
#ifdef KINDLING_EMULATED
        const unsigned thread = threadIdx.x;
#else
        unsigned thread;
        asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
#endif
        warp_row = thread / 32 % 4 * 16;
        lane = thread % 32;
        g = lane / 4;
        t = lane % 4;
    }
};

/// Starts d = a b^T, a and b being tiles.
__device__ __forceinline__ void multiply_transposed(float (&d)[32], unsigned long long a, unsigned long long b) {
    wgmma<false, false>(d, a, b);
#pragma unroll
    for (int k = 1; k < 4; k++) wgmma<false, true>(d, advance(a, 32 * k), advance(b, 32 * k));
    commit_products();
}
/// Like the function above, for heads of 128. The right half of a lies `a_half` bytes past the left
/// one, that of b `b_half` bytes.
__device__ __forceinline__ void multiply_transposed(float (&d)[32], unsigned long long a, unsigned long long b, int a_half,
                                                    int b_half) {
    wgmma<false, false>(d, a, b);
#pragma unroll
    for (int k = 1; k < 8; k++)
        wgmma<false, true>(d, advance(a, k / 4 * a_half + 32 * (k % 4)), advance(b, k / 4 * b_half + 32 * (k % 4)));
    commit_products();
}
/// Like the first function, with a in registers.
__device__ __forceinline__ void multiply_transposed(float (&d)[32], const unsigned (&a)[4][4], unsigned long long b) {
    wgmma<false, false>(d, a[0], b);
#pragma unroll
    for (int k = 1; k < 4; k++) wgmma<false, true>(d, a[k], advance(b, 32 * k));
    commit_products();
}
/// Starts d += a b, b being a tile.
__device__ __forceinline__ void add_product(float (&d)[32], const unsigned (&a)[4][4], unsigned long long b) {
#pragma unroll
    for (int k = 0; k < 4; k++) wgmma<true, true>(d, a[k], advance(b, 16 * TILE_ROW * k));
    commit_products();
}

/// Like the function above, for a tile of a head of 128, whose right half lies `half` bytes past
/// the left one.
__device__ __forceinline__ void add_product(float (&left)[32], float (&right)[32], const unsigned (&a)[4][4],
                                            unsigned long long b, int half) {
#pragma unroll
    for (int k = 0; k < 4; k++) wgmma_wide(left, right, a[k], advance(b, 16 * TILE_ROW * k), half);
    commit_products();
}

/// Rounds accumulators to the left operand of a product.
__device__ __forceinline__ void round_left(unsigned (&a)[4][4], const float (&from)[32]) {
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
        for (int r = 0; r < 4; r++) a[k][r] = pack(from[8 * k + 2 * r], from[8 * k + 2 * r + 1]);
}

/// Masks the scores of keys after the query in a tile on the diagonal. Rows are queries, or keys if
/// `transposed`.
template <bool transposed> __device__ __forceinline__ void mask_diagonal(float (&scores)[32]) {
    const Place at;
    const int beyond = at.warp_row + at.g - 2 * at.t;
#pragma unroll
    for (int i = 0; i < 32; i++) {
        const int column = 8 * (i / 4) + i % 2 - 8 * (i % 4 / 2);
        if (transposed ? column < beyond : column > beyond) scores[i] = -INFINITY;
    }
}

/// Rotates the gradients of the queries or keys of a tile, from `position` on, by the negative
/// angles of their positions. `column`: the tile's first column in the head.
__device__ __forceinline__ void rotate_tile(float (&sums)[32], const Rotation& rotation, int position, const Layout& l,
                                            int column = 0) {
    const Place at;
#pragma unroll
    for (int i = 0; i < 32; i += 2)
        rotate_back(sums[i], sums[i + 1], rotation, position + at.warp_row + at.g + 8 * (i % 4 / 2),
                    column + 8 * (i / 4) + 2 * at.t, l);
}

/// Writes the accumulators, row g times factor.x and row g + 8 times factor.y, to `count` rows of
/// memory. They pass through the warp's own rows of a tile that is no longer read.
__device__ __forceinline__ void write_tile(bf16* to, int width, int count, unsigned char* tile, const float (&sums)[32],
                                                  float2 factor) {
    // The warp has read its rows of the tile.
    __syncwarp();
    const Place at;
#pragma unroll
    for (int i = 0; i < 32; i += 2) {
        const float f = i % 4 < 2 ? factor.x : factor.y;
        *reinterpret_cast<unsigned*>(tile + chunk_at(at.warp_row + at.g + 8 * (i % 4 / 2), i / 4) + 4 * at.t) =
            pack(sums[i] * f, sums[i + 1] * f);
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = at.warp_row + 4 * i + at.lane / 8;
        if (row < count)
            *reinterpret_cast<uint4*>(to + (long long)row * width + at.lane % 8 * 8) =
                *reinterpret_cast<const uint4*>(tile + chunk_at(row, at.lane % 8));
    }
}

/// Copies the first `count` rows of a tile, `width` apart in memory, by 128 threads, and zeroes the
/// rest.
__device__ __forceinline__ void copy_rows(unsigned char* tile, const bf16* from, int width, int count) {
    const Place at;
    const int row = at.warp_row / 4 + at.lane / 8, chunk = at.lane % 8;
    from += (long long)row * width + 8 * chunk;
#pragma unroll
    for (int i = 0; i < 4; i++)
        copy_async(tile + chunk_at(row, chunk) + 16 * TILE_ROW * i, from + (long long)(16 * i) * width, row + 16 * i < count ? 16 : 0);
}

}  // namespace

#endif
