// Warp-level matrix instructions (sm_80 and later) and asynchronous copies to shared memory.
// Fragment layouts: PTX ISA, "Matrix Fragments for mma.m16n8k16" and "ldmatrix". g = lane / 4, t =
// lane % 4.
#pragma once

#include "kernels/elements.cuh"

#ifdef KINDLING_EMULATED
#include "matrix.h"

static inline void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, EMULATOR_SITE) {
    emulator::mma_m16n8k16(d, a, {b0, b1}, file, line);
}
template <bool transposed> void load_matrices(unsigned (&to)[4], const void* row, EMULATOR_SITE) {
    emulator::load_matrices<transposed>(to, row, file, line);
}
static inline void copy_async(void* to, const void* from, int bytes) { emulator::start_copy(to, from, bytes); }
static inline void commit_copies() { emulator::commit_copies(); }
template <int groups_left> void wait_copies() { emulator::wait_copies(groups_left); }
static inline float fast_exp2(float x) { return exp2f(x); }

#else

/// d (16, 8) += a (16, 16) b (16, 8), bf16 operands, f32 sums. d[i]: row g + 8 (i / 2), column 2 t
/// + i % 2. a[r]: row g + 8 (r % 2), columns 2 t + 8 (r / 2) and the next. b0, b1: rows 2 t (b1: 2
/// t + 8) and the next, column g.
static __device__ __forceinline__ void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Loads four 8 x 8 matrices from shared memory. Lane 8 i + r passes the address of row r of matrix
/// i. to[i]: elements 2 t and 2 t + 1 of row g of matrix i, or of its column g if `transposed`.
template <bool transposed> __device__ __forceinline__ void load_matrices(unsigned (&to)[4], const void* row) {
    const unsigned address = (unsigned)__cvta_generic_to_shared(row);
    if constexpr (transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(address) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(address) : "memory");
}

/// Starts to copy `bytes` (0 to 16) to shared memory and to zero the rest of 16 bytes. Both are
/// done after the `wait_copies` of the copy's group.
static __device__ __forceinline__ void copy_async(void* to, const void* from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"((unsigned)__cvta_generic_to_shared(to)), "l"(from), "r"(bytes) : "memory");
}
static __device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits for all but the thread's last `groups_left` groups of copies.
template <int groups_left> __device__ __forceinline__ void wait_copies() {
    asm volatile("cp.async.wait_group %0;" :: "n"(groups_left) : "memory");
}

static __device__ __forceinline__ float fast_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif
