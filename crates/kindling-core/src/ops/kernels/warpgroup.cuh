// Matrix instructions of a warpgroup, which is four consecutive warps (sm_90a only), on tiles in
// shared memory. A row of a tile is 64 bf16, swizzled: its 16-byte chunk c lies at chunk c ^ (r %
// 8) of row r. Tiles start at multiples of 1024 bytes, since the hardware swizzles by address bits.
// PTX ISA: "wgmma.mma_async", "Matrix Descriptor Format", "128-Byte swizzle".
#pragma once

#include "kernels/matrix.cuh"

/// Bytes of a row of a tile.
constexpr int TILE_ROW = 128;

/// Returns the offset in a tile of a row's chunk of eight elements, in bytes.
static __device__ __forceinline__ int chunk_at(int row, int chunk) { return row * TILE_ROW + ((chunk ^ (row & 7)) << 4); }

#ifdef KINDLING_EMULATED
#include "warpgroup.h"

/// Defined where this architecture has the instructions.
#define WARPGROUP_PRODUCTS
#define SHARED_TILES(name) unsigned char* name = emulator::dynamic_shared()

static inline unsigned long long describe(const void* tile, EMULATOR_SITE) { return emulator::describe(tile, file, line); }
static inline unsigned long long advance(unsigned long long tile, int bytes) { return tile + bytes; }
template <bool transposed, bool accumulate>
void wgmma(float (&d)[32], const unsigned (&a)[4], unsigned long long b, EMULATOR_SITE) {
    emulator::start_product({d, a, 0, b, transposed, accumulate, 0, {file, line}});
}
template <bool transposed, bool accumulate>
void wgmma(float (&d)[32], unsigned long long a, unsigned long long b, EMULATOR_SITE) {
    emulator::start_product({d, nullptr, a, b, transposed, accumulate, 0, {file, line}});
}
inline void wgmma_wide(float (&left)[32], float (&right)[32], const unsigned (&a)[4], unsigned long long b, int half, EMULATOR_SITE) {
    emulator::start_product({left, a, 0, b, true, true, 0, {file, line}});
    emulator::start_product({right, a, 0, b + half, true, true, 0, {file, line}});
}
static inline void publish_tiles() { emulator::publish_copies(); }
static inline void fence_products(EMULATOR_SITE) { emulator::check_published(file, line); }
static inline void commit_products() { emulator::commit_products(); }
template <int groups_left> void wait_products() { emulator::wait_products(groups_left); }
template <class T> void hold(T&) {}

#elif !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define WARPGROUP_PRODUCTS
#define SHARED_TILES(name) extern __shared__ __align__(1024) unsigned char name[]

/// Returns the descriptor of a tile for the matrix instructions: swizzled as above, 1024 bytes from
/// eight rows to the next eight.
static __device__ __forceinline__ unsigned long long describe(const void* tile) {
    const unsigned address = (unsigned)__cvta_generic_to_shared(tile);
    return (unsigned long long)((address & 0x3ffff) >> 4) | 1ull << 16 | (unsigned long long)(1024 >> 4) << 32 | 1ull << 62;
}
/// Advances a descriptor by whole rows, or by 16 columns (32 bytes) within the first row.
static __device__ __forceinline__ unsigned long long advance(unsigned long long tile, int bytes) { return tile + (bytes >> 4); }

#define ACCUMULATORS                                                                                           \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),            \
        "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),  \
        "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),\
        "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
#define WGMMA                                                                                          \
    "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "                                            \
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, "

/// Starts d (64, 64) = a (64, 16) b (16, 64), plus d if `accumulate`; f32 sums. Each warp has 16
/// rows of a and d, with the fragments of `mma`: d[4 n + i] is d[i] of columns 8 n to 8 n + 7. b is
/// 16 rows of a tile if `transposed`, else 64 rows of 16 columns, its transpose. Until the product
/// has been waited for, d and a may not be used and the tile may not be written.
template <bool transposed, bool accumulate>
__device__ __forceinline__ void wgmma(float (&d)[32], const unsigned (&a)[4], unsigned long long b) {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %37, 0;" WGMMA "{%32,%33,%34,%35}, %36, p, 1, 1, %38; }"
                 : ACCUMULATORS
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(int(accumulate)), "n"(int(transposed)));
}
/// Like the function above, with a as 16 columns of 64 rows of a tile.
template <bool transposed, bool accumulate>
__device__ __forceinline__ void wgmma(float (&d)[32], unsigned long long a, unsigned long long b) {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %34, 0;" WGMMA "%32, %33, p, 1, 1, 0, %35; }"
                 : ACCUMULATORS
                 : "l"(a), "l"(b), "n"(int(accumulate)), "n"(int(transposed)));
}

/// Starts d (64, 128) += a (64, 16) b (16, 128). The right half of d is `right`; that of b is the
/// 16 rows `half` bytes past b.
static __device__ __forceinline__ void wgmma_wide(float (&left)[32], float (&right)[32], const unsigned (&a)[4],
                                                  unsigned long long b, int half) {
    // `half` becomes the descriptor's leading byte offset, which only this product uses.
    b += (unsigned long long)((half >> 4) - 1) << 16;
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
                 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
                 "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, "
                 "{%64,%65,%66,%67}, %68, 1, 1, 1, 1;"
                 : "+f"(left[0]), "+f"(left[1]), "+f"(left[2]), "+f"(left[3]), "+f"(left[4]), "+f"(left[5]),
                   "+f"(left[6]), "+f"(left[7]), "+f"(left[8]), "+f"(left[9]), "+f"(left[10]), "+f"(left[11]),
                   "+f"(left[12]), "+f"(left[13]), "+f"(left[14]), "+f"(left[15]), "+f"(left[16]), "+f"(left[17]),
                   "+f"(left[18]), "+f"(left[19]), "+f"(left[20]), "+f"(left[21]), "+f"(left[22]), "+f"(left[23]),
                   "+f"(left[24]), "+f"(left[25]), "+f"(left[26]), "+f"(left[27]), "+f"(left[28]), "+f"(left[29]),
                   "+f"(left[30]), "+f"(left[31]),
                   "+f"(right[0]), "+f"(right[1]), "+f"(right[2]), "+f"(right[3]), "+f"(right[4]), "+f"(right[5]),
                   "+f"(right[6]), "+f"(right[7]), "+f"(right[8]), "+f"(right[9]), "+f"(right[10]), "+f"(right[11]),
                   "+f"(right[12]), "+f"(right[13]), "+f"(right[14]), "+f"(right[15]), "+f"(right[16]), "+f"(right[17]),
                   "+f"(right[18]), "+f"(right[19]), "+f"(right[20]), "+f"(right[21]), "+f"(right[22]), "+f"(right[23]),
                   "+f"(right[24]), "+f"(right[25]), "+f"(right[26]), "+f"(right[27]), "+f"(right[28]), "+f"(right[29]),
                   "+f"(right[30]), "+f"(right[31])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

/// Makes the thread's writes to shared memory visible to the products that follow the next barrier.
static __device__ __forceinline__ void publish_tiles() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
/// Orders the use of registers before the products that follow.
static __device__ __forceinline__ void fence_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
/// Ends a group of products.
static __device__ __forceinline__ void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Waits for all but the last `groups_left` groups of products.
template <int groups_left> __device__ __forceinline__ void wait_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(groups_left) : "memory");
}

/// Keeps the compiler from moving the use of registers across this point.
template <int N> __device__ __forceinline__ void hold(float (&registers)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(registers[i]) :: "memory");
}
template <int M, int N> __device__ __forceinline__ void hold(unsigned (&registers)[M][N]) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int i = 0; i < N; i++) asm volatile("" : "+r"(registers[m][i]) :: "memory");
}

#endif
