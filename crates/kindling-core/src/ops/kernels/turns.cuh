// Lets the blocks of a grid take turns at memory that they all add to: a counter per location says
// whose turn it is, so that sums over blocks are added in one fixed order.
// A block must wait only for blocks of lower linear index (x fastest). The hardware starts blocks
// in that order and never suspends one that runs, so a block that is waited for has started.
#pragma once

#include "kernels/elements.cuh"

#ifdef KINDLING_EMULATED

static inline void wait_for_turn(const int* counter, int turn, EMULATOR_SITE) {
    emulator::wait_for_value(counter, turn, {file, line});
}
static inline void pass_turn(int* counter, int next) { emulator::set_value(counter, next); }

#else

/// Waits until the counter is `turn`. Called by one thread of the warp or block. After the barrier
/// that follows, all of its threads may read what the earlier blocks wrote, but with __ldcg, since
/// L1 may hold stale data.
static __device__ __forceinline__ void wait_for_turn(const int* counter, int turn) {
    int now;
    do {
        asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(now) : "l"(counter) : "memory");
    } while (now != turn);
}
/// Sets the counter to the next turn. Called by one thread of the block, after the __syncthreads
/// that follows the block's writes.
static __device__ __forceinline__ void pass_turn(int* counter, int next) {
    __threadfence();
    asm volatile("st.release.gpu.global.s32 [%0], %1;" :: "l"(counter), "r"(next) : "memory");
}

#endif
