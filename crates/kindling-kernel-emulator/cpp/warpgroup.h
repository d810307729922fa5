// The matrix instructions of a warpgroup, with the layouts of the PTX ISA ("wgmma.mma_async",
// "128-Byte swizzle"). A product is performed when it is waited for, the latest moment allowed, so
// that operands overwritten too early show. Each warp has 16 rows of its own, so the four warps
// need not synchronize.
#pragma once

#include <vector>

#include "matrix.h"

namespace emulator {

/// d (64, 64) = a (64, 16) b (16, 64), plus d if `accumulate`: a thread's part of d and a, and the
/// address of b. If `a` is null, a is in a tile as well.
struct Product {
    float* d;
    const unsigned* a;
    uint64_t a_tile, b;
    bool transposed, accumulate;
    int group;
    Site site;
};

/// Products that a thread has started and not waited for, and the groups it has committed so far.
struct Products {
    std::vector<Product> started;
    int groups = 0;
};
Products& products();

/// Copies that a thread has waited for must be published before a product may read them.
void publish_copies();
void check_published(const char* file, int line);

inline uint64_t describe(const void* tile, const char* file, int line) {
    if (reinterpret_cast<uintptr_t>(tile) % 1024 != 0) fail("a tile starts at no multiple of 1024", {file, line});
    return reinterpret_cast<uintptr_t>(tile);
}

inline void start_product(Product product) {
    if (!product.accumulate) std::memset(product.d, 0xff, 32 * sizeof(float));
    product.group = products().groups;
    products().started.push_back(product);
}

inline void commit_products() { products().groups++; }

inline float tile_element(uint64_t tile, int row, int column) {
    uint64_t at = tile + uint64_t(row * 128 + column * 2);
    at ^= (at >> 7 & 7) << 4;
    uint16_t bits;
    std::memcpy(&bits, reinterpret_cast<const void*>(at), sizeof bits);
    return low_bf16(bits);
}

inline void perform(const Product& product) {
    struct Operands { unsigned a[4]; uint64_t a_tile, b; } mine = {{}, product.a_tile, product.b}, theirs;
    if (product.a != nullptr) std::memcpy(mine.a, product.a, sizeof mine.a);
    const unsigned char* all = warp_exchange("wgmma", 0xffffffffu, &mine, sizeof mine, product.site);
    const int lane = int(threadIdx.x % 32), g = lane / 4, t = lane % 4;
    float rows[2][16];
    for (int other = 0; other < 4; other++) {
        std::memcpy(&theirs, all + (4 * g + other) * LANE_BYTES, sizeof theirs);
        if (theirs.a_tile != mine.a_tile || theirs.b != mine.b) fail("wgmma: the lanes of a warp name different tiles", product.site);
        for (int r = 0; r < 4; r++) {
            const int k = 2 * other + 8 * (r / 2);
            rows[r % 2][k] = low_bf16(theirs.a[r]);
            rows[r % 2][k + 1] = high_bf16(theirs.a[r]);
        }
    }
    if (product.a == nullptr)
        for (int i = 0; i < 32; i++) rows[i / 16][i % 16] = tile_element(mine.a_tile, int(threadIdx.x) / 32 % 4 * 16 + g + i / 16 * 8, i % 16);
    for (int i = 0; i < 32; i++) {
        const int column = 8 * (i / 4) + 2 * t + i % 2;
        float sum = 0.0f;
        for (int k = 0; k < 16; k++)
            sum += rows[i % 4 / 2][k] * (product.transposed ? tile_element(mine.b, k, column) : tile_element(mine.b, column, k));
        product.d[i] = product.accumulate ? product.d[i] + sum : sum;
    }
}

inline void wait_products(int groups_left) {
    std::vector<Product>& started = products().started;
    size_t done = 0;
    while (done < started.size() && started[done].group < products().groups - groups_left) perform(started[done++]);
    started.erase(started.begin(), started.begin() + long(done));
}

}  // namespace emulator
