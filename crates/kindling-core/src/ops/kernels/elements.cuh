// Loads and stores of elements that are f32 or bf16 in memory and f32 in registers, one at a time
// or up to 16 bytes at once.
#pragma once

#include <cuda_bf16.h>

#ifndef KINDLING_EMULATED
// Shared memory is declared through these two macros, so that the kernel emulator can fill it with
// NaN before a block starts.
#define SHARED_ARRAY(T, name, count) __shared__ T name[count]
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

typedef __nv_bfloat16 bf16;

static __device__ __forceinline__ float to_float(float x) { return x; }
static __device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }

template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }

/// Unpacks the two bf16 of a word.
static __device__ __forceinline__ float2 unpack(unsigned pair) {
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

/// Packs two f32 as the bf16 of a word.
static __device__ __forceinline__ unsigned pack(float low, float high) {
    union { __nv_bfloat162 pair; unsigned word; } both;
    both.pair = __floats2bfloat162_rn(low, high);
    return both.word;
}

/// Loads N elements, N = 1, 2, 4 or 8. `from` is aligned to the size of the N elements, or to 16
/// bytes if that is less.
template <int N> __device__ __forceinline__ void load(float (&to)[N], const float* from) {
    if constexpr (N % 4 == 0) {
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            float4 four = *reinterpret_cast<const float4*>(from + i);
            to[i] = four.x; to[i + 1] = four.y; to[i + 2] = four.z; to[i + 3] = four.w;
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) to[i] = from[i];
    }
}

template <int N> __device__ __forceinline__ void load(float (&to)[N], const bf16* from) {
    if constexpr (N == 8) {
        uint4 words = *reinterpret_cast<const uint4*>(from);
        const unsigned pairs[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float2 two = unpack(pairs[i]);
            to[2 * i] = two.x; to[2 * i + 1] = two.y;
        }
    } else if constexpr (N == 4) {
        uint2 words = *reinterpret_cast<const uint2*>(from);
        float2 low = unpack(words.x), high = unpack(words.y);
        to[0] = low.x; to[1] = low.y; to[2] = high.x; to[3] = high.y;
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) to[i] = to_float(from[i]);
    }
}

/// Stores N elements, with the alignment of `load`.
template <int N> __device__ __forceinline__ void store(float* to, const float (&from)[N]) {
    if constexpr (N % 4 == 0) {
#pragma unroll
        for (int i = 0; i < N; i += 4)
            *reinterpret_cast<float4*>(to + i) = make_float4(from[i], from[i + 1], from[i + 2], from[i + 3]);
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) to[i] = from[i];
    }
}

template <int N> __device__ __forceinline__ void store(bf16* to, const float (&from)[N]) {
    if constexpr (N == 8) {
        *reinterpret_cast<uint4*>(to) = make_uint4(pack(from[0], from[1]), pack(from[2], from[3]),
                                                   pack(from[4], from[5]), pack(from[6], from[7]));
    } else if constexpr (N == 4) {
        *reinterpret_cast<uint2*>(to) = make_uint2(pack(from[0], from[1]), pack(from[2], from[3]));
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) to[i] = from_float<bf16>(from[i]);
    }
}

/// Returns whether N elements of T at a time may be loaded at `address` and at every multiple of N
/// elements after it.
template <int N, class T> __device__ __forceinline__ bool is_aligned(const T* address) {
    const unsigned long long bytes = N * sizeof(T) < 16 ? N * sizeof(T) : 16;
    return reinterpret_cast<unsigned long long>(address) % bytes == 0;
}
