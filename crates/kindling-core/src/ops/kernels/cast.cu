// Casts between f32 and bf16, rounding to nearest even. out, x: n elements.
// Grid: any; block: 256 threads, 8 elements each at a time; no shared memory.
#include "kernels/elements.cuh"

namespace {

template <int N, class To, class From> __device__ void cast_run(To* out, const From* x, long long n) {
    for (long long at = (blockIdx.x * (long long)blockDim.x + threadIdx.x) * N; at < n;
         at += (long long)gridDim.x * blockDim.x * N) {
        float v[N];
        load<N>(v, x + at);
        store<N>(out + at, v);
    }
}

template <class To, class From> __device__ void cast(To* out, const From* x, long long n) {
    if (n % 8 == 0 && is_aligned<8>(out) && is_aligned<8>(x)) cast_run<8>(out, x, n);
    else cast_run<1>(out, x, n);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256) cast_f32_to_bf16(bf16* out, const float* x, long long n) {
    cast(out, x, n);
}
extern "C" __global__ void __launch_bounds__(256) cast_bf16_to_f32(float* out, const bf16* x, long long n) {
    cast(out, x, n);
}
