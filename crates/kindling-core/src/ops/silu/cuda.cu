// SiLU. out = x sigma(x); dx = dout sigma(x) (1 + x (1 - sigma(x))). x, out, dx, dout: n elements.
// Grid: enough blocks of 256 threads for one pass, 8 elements (16 bytes of bf16) per thread; no
// shared memory.
#include "kernels/elements.cuh"

namespace {

template <int N, class T> __device__ void forward(T* out, const T* x, long long n) {
    for (long long at = (blockIdx.x * (long long)blockDim.x + threadIdx.x) * N; at < n;
         at += (long long)gridDim.x * blockDim.x * N) {
        float v[N];
        load<N>(v, x + at);
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = v[i] / (1.0f + __expf(-v[i]));
        store<N>(out + at, v);
    }
}

template <int N, class T> __device__ void backward(T* dx, const T* dout, const T* x, long long n) {
    for (long long at = (blockIdx.x * (long long)blockDim.x + threadIdx.x) * N; at < n;
         at += (long long)gridDim.x * blockDim.x * N) {
        float v[N], d[N];
        load<N>(v, x + at);
        load<N>(d, dout + at);
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float sigma = 1.0f / (1.0f + __expf(-v[i]));
            d[i] *= sigma * (1.0f + v[i] * (1.0f - sigma));
        }
        store<N>(dx + at, d);
    }
}

template <class T> __device__ void forward_any(T* out, const T* x, long long n) {
    if (n % 8 == 0 && is_aligned<8>(out) && is_aligned<8>(x)) forward<8>(out, x, n);
    else forward<1>(out, x, n);
}

template <class T> __device__ void backward_any(T* dx, const T* dout, const T* x, long long n) {
    if (n % 8 == 0 && is_aligned<8>(dx) && is_aligned<8>(dout) && is_aligned<8>(x)) backward<8>(dx, dout, x, n);
    else backward<1>(dx, dout, x, n);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256) silu_forward_f32(float* out, const float* x, long long n) {
    forward_any(out, x, n);
}
extern "C" __global__ void __launch_bounds__(256) silu_forward_bf16(bf16* out, const bf16* x, long long n) {
    forward_any(out, x, n);
}
extern "C" __global__ void __launch_bounds__(256)
silu_backward_f32(float* dx, const float* dout, const float* x, long long n) {
    backward_any(dx, dout, x, n);
}
extern "C" __global__ void __launch_bounds__(256) silu_backward_bf16(bf16* dx, const bf16* dout, const bf16* x, long long n) {
    backward_any(dx, dout, x, n);
}
