// Tiles of bf16 in shared memory for the tensor-core kernels of attention. Rows have W elements, W
// a multiple of 16 and at least the head size, padded with zeros; 8 more elements per row put the 8
// rows of a matrix in different banks.
#pragma once

#include "kernels/matrix.cuh"

namespace {

constexpr int WARPS = 4;
constexpr int THREADS = 32 * WARPS;
constexpr float LOG2_E = 1.4426950408889634f;

template <int W> constexpr int STRIDE = W + 8;

/// Layout of a kernel's tensors. A row of qkv holds all queries, then all keys, then all values.
struct Layout {
    int positions, num_heads, num_kv_heads, head_size;
    bool aligned;  // Rows of a head can be copied 16 bytes at a time.

    __device__ int qkv_width() const { return (num_heads + 2 * num_kv_heads) * head_size; }
    __device__ int out_width() const { return num_heads * head_size; }
    __device__ int group() const { return num_heads / num_kv_heads; }
    __device__ int q_column(int head) const { return head * head_size; }
    __device__ int k_column(int kv_head) const { return (num_heads + kv_head) * head_size; }
    __device__ int v_column(int kv_head) const { return (num_heads + num_kv_heads + kv_head) * head_size; }
};

/// Tables of the rotation of queries and keys, as in rope: (positions, head_size), equal for both
/// elements of a pair. Null if there is no rotation.
struct Rotation {
    const float *cos, *sin;
};

/// Rotates a pair of a gradient by the negative angle of its position. `column`: the column of
/// `low` in the head.
__device__ __forceinline__ void rotate_back(float& low, float& high, const Rotation& rotation, int position, int column,
                                            const Layout& l) {
    if (rotation.cos == nullptr || position >= l.positions || column >= l.head_size) return;
    const long long at = (long long)position * l.head_size + column;
    const float cos = rotation.cos[at], sin = rotation.sin[at], before = low;
    low = before * cos + high * sin;
    high = high * cos - before * sin;
}

/// Copies the first `count` of ROWS rows of head_size elements, `width` apart in memory, and zeroes
/// the rest. For blocks of COUNT threads, each UNROLL copies at a time. If aligned, the copies are
/// asynchronous, part of the caller's next group of copies.
template <int W, int ROWS, int COUNT = THREADS, int UNROLL = 4>
__device__ __forceinline__ void copy_tile(bf16* tile, const bf16* from, int width, int count, const Layout& l) {
    if (l.aligned) {
#pragma unroll UNROLL
        for (int i = threadIdx.x; i < ROWS * (W / 8); i += COUNT) {
            const int row = i / (W / 8), column = i % (W / 8) * 8;
            const bool inside = row < count && column < l.head_size;
            copy_async(tile + row * STRIDE<W> + column, inside ? from + (long long)row * width + column : from,
                       inside ? 16 : 0);
        }
    } else {
#pragma unroll UNROLL
        for (int i = threadIdx.x; i < ROWS * W; i += COUNT) {
            const int row = i / W, column = i % W;
            const bool inside = row < count && column < l.head_size;
            tile[row * STRIDE<W> + column] =
                inside ? from[(long long)row * width + column] : from_float<bf16>(0.0f);
        }
    }
}

/// Writes the first `count` rows of a warp's 16 M rows of a tile to memory, `width` apart. Only the
/// warp itself may have written the rows of the tile.
template <int W, int M>
__device__ __forceinline__ void write_tile(bf16* to, const bf16* tile, int width, int count, const Layout& l) {
    const int lane = threadIdx.x % 32;
    if (l.aligned) {
        for (int i = lane; i < 16 * M * (W / 8); i += 32) {
            const int row = i / (W / 8), column = i % (W / 8) * 8;
            if (row < count && column < l.head_size)
                *reinterpret_cast<uint4*>(to + (long long)row * width + column) =
                    *reinterpret_cast<const uint4*>(tile + row * STRIDE<W> + column);
        }
    } else {
        for (int i = lane; i < 16 * M * W; i += 32) {
            const int row = i / W, column = i % W;
            if (row < count && column < l.head_size) to[(long long)row * width + column] = tile[row * STRIDE<W> + column];
        }
    }
}

/// Stores the accumulators of 16 M rows, times `factor(m, half)`, in the warp's rows of a tile.
template <int W, int M, class Factor>
__device__ __forceinline__ void put_rows(bf16* tile, const float (&sums)[M][W / 8][4], Factor factor) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float f = factor(m, half);
#pragma unroll
            for (int n = 0; n < W / 8; n++)
                *reinterpret_cast<unsigned*>(tile + (16 * m + 8 * half + g) * STRIDE<W> + 8 * n + 2 * t) =
                    pack(sums[m][n][2 * half] * f, sums[m][n][2 * half + 1] * f);
        }
}

/// As `put_rows`, with the rows rotated by the negative angles of their positions, from `position`
/// on.
template <int W, int M>
__device__ __forceinline__ void put_rotated_rows(bf16* tile, float (&sums)[M][W / 8][4], float factor, int position,
                                                 const Rotation& rotation, const Layout& l) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < W / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i += 2)
                rotate_back(sums[m][n][i], sums[m][n][i + 1], rotation, position + 16 * m + 4 * i + g, 8 * n + 2 * t, l);
    put_rows<W, M>(tile, sums, [&](int, int) { return factor; });
}

/// Writes the accumulators of 16 M rows from `position` on and W columns from `column` on, times
/// `factor` and rotated by the negative angles, to a head's rows of qkv's width. `to` points to
/// position 0 and column 0.
template <int W, int M>
__device__ __forceinline__ void write_rotated_rows(bf16* to, float (&sums)[M][W / 8][4], float factor, int position,
                                                   int column, const Rotation& rotation, const Layout& l) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < W / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i += 2) {
                const int row = position + 16 * m + 4 * i + g, first = column + 8 * n + 2 * t;
                if (row >= l.positions || first >= l.head_size) continue;
                float low = sums[m][n][i] * factor, high = sums[m][n][i + 1] * factor;
                rotate_back(low, high, rotation, row, first, l);
                bf16* place = to + (long long)row * l.qkv_width() + first;
                if (l.aligned) {
                    *reinterpret_cast<unsigned*>(place) = pack(low, high);
                } else {
                    place[0] = from_float<bf16>(low);
                    if (first + 1 < l.head_size) place[1] = from_float<bf16>(high);
                }
            }
}

/// Loads the 16 x 16 left operand at (row, column) of a tile.
template <int W> __device__ __forceinline__ void load_left(unsigned (&a)[4], const bf16* tile, int row, int column) {
    const int lane = threadIdx.x % 32;
    load_matrices<false>(a, tile + (row + lane % 16) * STRIDE<W> + column + lane / 16 * 8);
}

/// Loads the left operands of 16 M rows from `row` on, over all columns of the tile.
template <int W, int M>
__device__ __forceinline__ void load_left_rows(unsigned (&a)[M][W / 16][4], const bf16* tile, int row) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int k = 0; k < W / 16; k++) load_left<W>(a[m][k], tile, row + 16 * m, 16 * k);
}

/// sums (16 M, N) += left (16 M, W) tile^T, tile (N, W). left(a, m, k) loads the left operand of 16
/// rows, from column 16 k on.
template <int W, int M, int N, class Left>
__device__ __forceinline__ void add_product_transposed(float (&sums)[M][N / 8][4], const bf16* tile, Left left) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < W / 16; k++) {
        unsigned a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) left(a[m], m, k);
#pragma unroll
        for (int n = 0; n < N / 16; n++) {
            // Rows 16 n to 16 n + 7 from columns 16 k and 16 k + 8; then the next eight rows.
            unsigned b[4];
            load_matrices<false>(b, tile + (16 * n + lane / 16 * 8 + lane % 8) * STRIDE<W> + 16 * k + lane / 8 % 2 * 8);
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma(sums[m][2 * n], a[m], b[0], b[1]);
                mma(sums[m][2 * n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

/// Converts the accumulators of a product (16 M, N) to left operands of the next one, rounded to
/// bf16: a[m][k][r] holds n = 2 k + r / 2, i = 2 (r % 2) and the next.
template <int M, int N>
__device__ __forceinline__ void round_left(unsigned (&a)[M][N / 16][4], const float (&sums)[M][N / 8][4]) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int k = 0; k < N / 16; k++)
#pragma unroll
            for (int r = 0; r < 4; r++)
                a[m][k][r] = pack(sums[m][2 * k + r / 2][2 * (r % 2)], sums[m][2 * k + r / 2][2 * (r % 2) + 1]);
}

/// sums (16 M, W) += left (16 M, N) tile, tile (N, W).
template <int W, int M, int N>
__device__ __forceinline__ void add_product(float (&sums)[M][W / 8][4], const unsigned (&left)[M][N / 16][4],
                                            const bf16* tile) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < N / 16; k++)
#pragma unroll
        for (int n = 0; n < W / 16; n++) {
            // Rows 16 k to 16 k + 15 from column 16 n; then the next eight columns.
            unsigned b[4];
            load_matrices<true>(b, tile + (16 * k + lane % 16) * STRIDE<W> + 16 * n + lane / 16 * 8);
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma(sums[m][2 * n], left[m][k], b[0], b[1]);
                mma(sums[m][2 * n + 1], left[m][k], b[2], b[3]);
            }
        }
}

/// sums (16 M, W) += left (16 M, N) tile, with the accumulators of a product as the left operand.
template <int W, int M, int N>
__device__ __forceinline__ void add_product(float (&sums)[M][W / 8][4], const float (&left)[M][N / 8][4], const bf16* tile) {
    unsigned a[M][N / 16][4];
    round_left<M, N>(a, left);
    add_product<W, M, N>(sums, a, tile);
}

template <int M, int N> __device__ __forceinline__ void set_zero(float (&sums)[M][N][4]) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) sums[m][n][i] = 0.0f;
}

}  // namespace
