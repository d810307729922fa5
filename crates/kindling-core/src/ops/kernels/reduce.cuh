// Sums and maxima over a warp or a block, always in the same order.
#pragma once

template <class T> __device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
    for (int bits = 16; bits > 0; bits /= 2) value += __shfl_xor_sync(0xffffffffu, value, bits);
    return value;
}

static __device__ __forceinline__ float warp_max(float value) {
#pragma unroll
    for (int bits = 16; bits > 0; bits /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, bits));
    return value;
}

/// Returns the sum over the block's threads to all of them. `partial` may be reused after a
/// barrier.
template <class T> __device__ __forceinline__ T block_sum(T value, T (&partial)[32]) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    value = warp_sum(value);
    if (lane == 0) partial[warp] = value;
    __syncthreads();
    return warp_sum(lane < warps ? partial[lane] : T(0));
}

/// The maximum of some numbers, and the sum of exp(value - maximum).
struct Exponentials { float largest, sum; };

static __device__ __forceinline__ Exponentials merge(Exponentials a, Exponentials b) {
    const float largest = fmaxf(a.largest, b.largest);
    if (largest == -INFINITY) return {largest, 0.0f};
    return {largest, a.sum * __expf(a.largest - largest) + b.sum * __expf(b.largest - largest)};
}

/// Adds N more numbers.
template <int N> __device__ __forceinline__ void take_in(Exponentials& e, const float (&values)[N]) {
    float largest = e.largest;
#pragma unroll
    for (int i = 0; i < N; i++) largest = fmaxf(largest, values[i]);
    if (largest == -INFINITY) return;
    float sum = e.sum * __expf(e.largest - largest);
#pragma unroll
    for (int i = 0; i < N; i++) sum += __expf(values[i] - largest);
    e = {largest, sum};
}

/// Merges the values of all threads of the block and returns the result to all of them. Once it
/// returns, all threads have read their inputs.
static __device__ __forceinline__ Exponentials block_merge(Exponentials e, float (&largest)[32], float (&sum)[32]) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
#pragma unroll
    for (int bits = 16; bits > 0; bits /= 2)
        e = merge(e, {__shfl_xor_sync(0xffffffffu, e.largest, bits), __shfl_xor_sync(0xffffffffu, e.sum, bits)});
    if (lane == 0) {
        largest[warp] = e.largest;
        sum[warp] = e.sum;
    }
    __syncthreads();
    e = lane < warps ? Exponentials{largest[lane], sum[lane]} : Exponentials{-INFINITY, 0.0f};
#pragma unroll
    for (int bits = 16; bits > 0; bits /= 2)
        e = merge(e, {__shfl_xor_sync(0xffffffffu, e.largest, bits), __shfl_xor_sync(0xffffffffu, e.sum, bits)});
    __syncthreads();
    return e;
}
