// Kernels with one bug each, next to a correct one: the emulator must find every bug. The last ones
// compare the emulated matrix instructions with the fragment layouts of the PTX ISA, element by
// element.
#include "kernels/elements.cuh"
#include "kernels/turns.cuh"
#include "kernels/warpgroup.cuh"

namespace {

enum Bug { NONE, NO_BARRIER, NO_SECOND_BARRIER };

/// out[i] = x[0] + ... + x[i] of the block, by doubling steps over shared memory. Block: 64
/// threads.
template <Bug bug> __device__ void prefix(float* out, const float* x) {
    SHARED_ARRAY(float, sums, 64);
    const int i = int(threadIdx.x);
    sums[i] = x[i];
    __syncthreads();
    for (int step = 1; step < 64; step *= 2) {
        float before = i >= step ? sums[i - step] : 0.0f;
        if (bug != NO_BARRIER) __syncthreads();
        sums[i] += before;
        if (bug != NO_SECOND_BARRIER) __syncthreads();
    }
    out[i] = sums[i];
}

}  // namespace

extern "C" __global__ void planted_sound(float* out, const float* x) { prefix<NONE>(out, x); }
extern "C" __global__ void planted_no_barrier(float* out, const float* x) { prefix<NO_BARRIER>(out, x); }
extern "C" __global__ void planted_no_second_barrier(float* out, const float* x) { prefix<NO_SECOND_BARRIER>(out, x); }

extern "C" __global__ void planted_barrier_in_branch(float* out, const float* x) {
    if (threadIdx.x < 32) __syncthreads();
    out[threadIdx.x] = x[threadIdx.x];
}

extern "C" __global__ void planted_two_barriers(float* out, const float* x) {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = x[threadIdx.x];
}

extern "C" __global__ void planted_shuffle_in_branch(float* out, const float* x) {
    float value = x[threadIdx.x];
    if (threadIdx.x % 2 == 0) value = __shfl_xor_sync(0xffffffffu, value, 2);
    out[threadIdx.x] = value;
}

/// Lane 31 writes and the rest of its warp reads, although a warp's threads do not run in lockstep.
extern "C" __global__ void planted_no_warp_barrier(float* out, const float* x) {
    SHARED_ARRAY(float, first, 2);
    if (threadIdx.x % 32 == 31) first[threadIdx.x / 32] = x[threadIdx.x];
    out[threadIdx.x] = first[threadIdx.x / 32];
}

extern "C" __global__ void planted_read_past_end(float* out, const float* x) { out[threadIdx.x] = 0.0f * x[threadIdx.x + 16]; }
extern "C" __global__ void planted_write_past_end(float* out, const float* x) { out[threadIdx.x + 1] = x[threadIdx.x]; }
extern "C" __global__ void planted_write_before(float* out, const float* x) { out[int(threadIdx.x) - 1] = x[threadIdx.x]; }

extern "C" __global__ void planted_misaligned(float* out, const float* x) {
    if (threadIdx.x < 15) store<4>(out + 4 * threadIdx.x + 1, {1.0f, 2.0f, 3.0f, x[0]});
}

extern "C" __global__ void planted_shared_index(float* out, const float* x) {
    SHARED_ARRAY(float, values, 63);
    values[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = values[threadIdx.x];
}

extern "C" __global__ void planted_dynamic_shared_size(float* out, const float* x) {
    DYNAMIC_SHARED(bytes);
    float* values = reinterpret_cast<float*>(bytes);
    values[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = values[threadIdx.x];
}

extern "C" __global__ void planted_uninitialised(float* out, const float* x) {
    SHARED_ARRAY(float, sum, 1);
    if (threadIdx.x == 0) sum[0] += x[0];
    __syncthreads();
    out[threadIdx.x] = sum[0];
}

/// Blocks add to one location in the order in which they run.
extern "C" __global__ void planted_order_of_blocks(float* out, const float* x) {
    if (threadIdx.x == 0) atomicAdd(out, x[blockIdx.x] * 1e-3f + float(blockIdx.x % 3) * 1e5f);
}

/// Adds element `turn` of x to out[0], weighing down the earlier ones, once the counter in out[1]
/// has reached `turn`.
static void add_in_turn(float* out, const float* x, int turn, bool early = false) {
    int* counter = reinterpret_cast<int*>(out + 1);
    if (threadIdx.x == 0) wait_for_turn(counter, turn);
    __syncthreads();
    if (threadIdx.x != 0) return;
    if (early) pass_turn(counter, turn + 1);
    out[0] = 0.9f * out[0] + x[turn];
    if (!early) pass_turn(counter, turn + 1);
}

extern "C" __global__ void planted_turns(float* out, const float* x) { add_in_turn(out, x, blockIdx.x); }
/// Passes the turn on before it has written.
extern "C" __global__ void planted_early_turn(float* out, const float* x) { add_in_turn(out, x, blockIdx.x, true); }
/// Deadlocks if fewer blocks fit a GPU than the grid has.
extern "C" __global__ void planted_turns_of_later_blocks(float* out, const float* x) {
    add_in_turn(out, x, gridDim.x - 1 - blockIdx.x);
}
/// Every block waits for another one.
extern "C" __global__ void planted_no_first_turn(float* out, const float* x) { add_in_turn(out, x, blockIdx.x + 1); }

/// Reads a copied row before the copy has completed.
extern "C" __global__ void planted_no_wait(float* out, const float* x) {
    SHARED_ARRAY(float4, rows, 64);
    emulator::start_copy(&rows[threadIdx.x], x, 16);
    emulator::commit_copies();
    __syncthreads();
    out[threadIdx.x] = rows[threadIdx.x].x;
}

/// d (16, 8) += a (16, 16) b (16, 8), row-major, with elements assigned to lanes by "Matrix
/// Fragments for mma.m16n8k16 with floating point type". groupID = lane / 4, threadID_in_group =
/// lane % 4. Block: one warp.
extern "C" __global__ void instructions_mma(float* d, const bf16* a, const bf16* b) {
    const int lane = int(threadIdx.x), group = lane / 4, in_group = lane % 4;
    bf16 a_elements[8], b_elements[4];
    float sums[4];
    for (int i = 0; i < 8; i++) {
        const int row = (i < 2 || (4 <= i && i < 6)) ? group : group + 8;
        const int column = i < 4 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8;
        a_elements[i] = a[row * 16 + column];
    }
    for (int i = 0; i < 4; i++) {
        const int row = i < 2 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8;
        b_elements[i] = b[row * 8 + group];
    }
    for (int i = 0; i < 4; i++) sums[i] = d[(i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1)];
    unsigned a_words[4], b_words[2];
    std::memcpy(a_words, a_elements, sizeof a_words);
    std::memcpy(b_words, b_elements, sizeof b_words);
    emulator::mma_m16n8k16(sums, a_words, b_words);
    for (int i = 0; i < 4; i++) d[(i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1)] = sums[i];
}

/// out (2, 32 lanes, 8): what ldmatrix .x4, plain and .trans, loads into each lane from four
/// matrices x (4, 8, 8). Block: one warp.
extern "C" __global__ void instructions_ldmatrix(bf16* out, const bf16* x) {
    SHARED_ARRAY(uint4, rows, 32);
    rows[threadIdx.x] = reinterpret_cast<const uint4*>(x)[threadIdx.x];
    __syncthreads();
    unsigned words[4];
    emulator::load_matrices<false>(words, &rows[threadIdx.x]);
    std::memcpy(out + 8 * threadIdx.x, words, sizeof words);
    emulator::load_matrices<true>(words, &rows[threadIdx.x]);
    std::memcpy(out + 256 + 8 * threadIdx.x, words, sizeof words);
}

/// d (2, 64, 64): a (64, 16) times the transpose of the first 16 columns of b (64, 64), then times
/// its first 16 rows. Block: one warpgroup; shared: a tile.
template <bool published> __device__ void multiply_tile(float* d, const bf16* a, const bf16* b) {
    SHARED_TILES(tile);
    const int thread = int(threadIdx.x), lane = thread % 32, row = thread / 32 * 16 + lane / 4, t = lane % 4;
    for (int i = thread; i < 64 * 8; i += 128) copy_async(tile + chunk_at(i / 8, i % 8), b + 8 * i, 16);
    commit_copies();
    wait_copies<0>();
    if (published) publish_tiles();
    __syncthreads();
    bf16 elements[8];
    for (int i = 0; i < 8; i++) elements[i] = a[(row + i / 2 % 2 * 8) * 16 + 2 * t + i % 2 + i / 4 * 8];
    unsigned words[4];
    std::memcpy(words, elements, sizeof words);
    float sums[2][32];
    fence_products();
    wgmma<false, false>(sums[0], words, describe(tile));
    wgmma<true, false>(sums[1], words, describe(tile));
    commit_products();
    wait_products<0>();
    for (int form = 0; form < 2; form++)
        for (int i = 0; i < 32; i++)
            d[(form * 64 + row + i % 4 / 2 * 8) * 64 + i / 4 * 8 + 2 * t + i % 2] = sums[form][i];
}

extern "C" __global__ void instructions_wgmma(float* d, const bf16* a, const bf16* b) { multiply_tile<true>(d, a, b); }
extern "C" __global__ void planted_unpublished(float* d, const bf16* a, const bf16* b) { multiply_tile<false>(d, a, b); }

/// Overwrites the left operand of a product that it has not waited for.
extern "C" __global__ void planted_product_in_flight(float* out, const float* x) {
    SHARED_TILES(tile);
    for (int i = int(threadIdx.x); i < 64 * 32; i += 64) reinterpret_cast<unsigned*>(tile)[i] = pack(1.0f, 1.0f);
    __syncthreads();
    unsigned words[4];
    for (unsigned& word : words) word = pack(x[0] + 1.0f, x[0] + 1.0f);
    float sums[32];
    fence_products();
    wgmma<false, false>(sums, words, describe(tile));
    commit_products();
    words[0] = pack(x[1] + 1.0f, x[1] + 1.0f);
    wait_products<0>();
    out[threadIdx.x] = sums[0];
}
