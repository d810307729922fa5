// The matrix instructions of a warp as plain functions, with the fragment layouts of the PTX ISA
// ("Matrix Fragments for mma.m16n8k16", "ldmatrix"). g = lane / 4, t = lane % 4.
#pragma once

#include "cuda_bf16.h"

namespace emulator {

inline float low_bf16(unsigned pair) { return __uint_as_float(pair << 16); }
inline float high_bf16(unsigned pair) { return __uint_as_float(pair & 0xffff0000u); }

/// D (16, 8) = A (16, 16) B (16, 8) + C, f32 += bf16 bf16. A row-major: register r holds row g + 8
/// (r % 2), columns 2 t + 8 (r / 2) and the next. B column-major: register r holds rows 2 t + 8 r
/// and the next of column g. C and D: element i is row g + 8 (i / 2), column 2 t + i % 2.
inline void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], EMULATOR_SITE) {
    struct Fragments { unsigned a[4], b[2]; } mine, theirs;
    std::memcpy(mine.a, a, sizeof a);
    std::memcpy(mine.b, b, sizeof b);
    const unsigned char* all = warp_exchange("mma", 0xffffffffu, &mine, sizeof mine, {file, line});
    int lane = int(threadIdx.x % 32), g = lane / 4, t = lane % 4;
    float rows[2][16], columns[2][16];
    for (int other = 0; other < 4; other++) {
        std::memcpy(&theirs, all + (4 * g + other) * LANE_BYTES, sizeof theirs);
        for (int r = 0; r < 4; r++) {
            int k = 2 * other + 8 * (r / 2);
            rows[r % 2][k] = low_bf16(theirs.a[r]);
            rows[r % 2][k + 1] = high_bf16(theirs.a[r]);
        }
        for (int column = 0; column < 2; column++) {
            std::memcpy(&theirs, all + (4 * (2 * t + column) + other) * LANE_BYTES, sizeof theirs);
            for (int r = 0; r < 2; r++) {
                columns[column][2 * other + 8 * r] = low_bf16(theirs.b[r]);
                columns[column][2 * other + 8 * r + 1] = high_bf16(theirs.b[r]);
            }
        }
    }
    for (int i = 0; i < 4; i++) {
        float sum = 0.0f;
        for (int k = 0; k < 16; k++) sum += rows[i / 2][k] * columns[i % 2][k];
        d[i] += sum;
    }
}

/// Loads four 8 x 8 matrices of 16-bit elements. Lane 8 i + r passes the address of row r of matrix
/// i (16 bytes, aligned). Register i of a lane receives elements 2 t and 2 t + 1 of row g of matrix
/// i, or of column g if `transposed`.
template <bool transposed>
void load_matrices(unsigned (&to)[4], const void* row, EMULATOR_SITE) {
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0) fail("ldmatrix: a row's address is no multiple of 16", {file, line});
    const unsigned char* all = warp_exchange("ldmatrix", 0xffffffffu, &row, sizeof row, {file, line});
    const uint16_t* rows[32];
    for (int lane = 0; lane < 32; lane++) std::memcpy(&rows[lane], all + lane * LANE_BYTES, sizeof row);
    int lane = int(threadIdx.x % 32), g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++) {
        uint16_t low = transposed ? rows[8 * i + 2 * t][g] : rows[8 * i + g][2 * t];
        uint16_t high = transposed ? rows[8 * i + 2 * t + 1][g] : rows[8 * i + g][2 * t + 1];
        to[i] = unsigned(low) | unsigned(high) << 16;
    }
}

}  // namespace emulator
