// SwiGLU's gate. out = silu(gate) up; dgate = dout up sigma (1 + gate (1 - sigma)), dup = dout
// silu(gate). The backward pass may overwrite its inputs: dgate_up may be gate_up, and out (null if
// not wanted) may be dout. gate_up, dgate_up: (rows, 2 width), each row gate | up; out, dout:
// (rows, width).
// Grid: one block per row; block: up to 256 threads, 8 elements (16 bytes of bf16) each at a time;
// no shared memory.
#include "kernels/elements.cuh"

namespace {

template <int N, class T> __device__ void forward_row(T* out, const T* gate, const T* up, int width) {
    for (int at = threadIdx.x * N; at < width; at += blockDim.x * N) {
        float g[N], u[N];
        load<N>(g, gate + at);
        load<N>(u, up + at);
#pragma unroll
        for (int i = 0; i < N; i++) g[i] = g[i] * __fdividef(1.0f, 1.0f + __expf(-g[i])) * u[i];
        store<N>(out + at, g);
    }
}

template <int N, class T>
__device__ void backward_row(T* dgate, T* dup, T* out, const T* dout, const T* gate, const T* up, int width) {
    for (int at = threadIdx.x * N; at < width; at += blockDim.x * N) {
        float g[N], u[N], d[N];
        load<N>(g, gate + at);
        load<N>(u, up + at);
        load<N>(d, dout + at);
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float sigma = __fdividef(1.0f, 1.0f + __expf(-g[i]));
            const float slope = sigma * (1.0f + g[i] * (1.0f - sigma));
            const float dgate_i = d[i] * u[i] * slope, silu = g[i] * sigma, dup_i = d[i] * silu;
            d[i] = silu * u[i];
            g[i] = dgate_i;
            u[i] = dup_i;
        }
        store<N>(dgate + at, g);
        store<N>(dup + at, u);
        if (out) store<N>(out + at, d);
    }
}

template <class T> __device__ void forward(T* out, const T* gate_up, int width) {
    const long long row = blockIdx.x;
    const T* gate = gate_up + row * 2 * width;
    if (width % 8 == 0 && is_aligned<8>(out) && is_aligned<8>(gate_up))
        forward_row<8>(out + row * width, gate, gate + width, width);
    else
        forward_row<1>(out + row * width, gate, gate + width, width);
}

template <class T> __device__ void backward(T* dgate_up, T* out, const T* dout, const T* gate_up, int width) {
    const long long row = blockIdx.x;
    const T* gate = gate_up + row * 2 * width;
    T *dgate = dgate_up + row * 2 * width, *out_row = out ? out + row * width : nullptr;
    if (width % 8 == 0 && is_aligned<8>(dgate_up) && is_aligned<8>(out) && is_aligned<8>(dout) && is_aligned<8>(gate_up))
        backward_row<8>(dgate, dgate + width, out_row, dout + row * width, gate, gate + width, width);
    else
        backward_row<1>(dgate, dgate + width, out_row, dout + row * width, gate, gate + width, width);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256) swiglu_forward_f32(float* out, const float* gate_up, int width) {
    forward(out, gate_up, width);
}
extern "C" __global__ void __launch_bounds__(256) swiglu_forward_bf16(bf16* out, const bf16* gate_up, int width) {
    forward(out, gate_up, width);
}
extern "C" __global__ void __launch_bounds__(256)
swiglu_backward_f32(float* dgate_up, float* out, const float* dout, const float* gate_up, int width) {
    backward(dgate_up, out, dout, gate_up, width);
}
extern "C" __global__ void __launch_bounds__(256)
swiglu_backward_bf16(bf16* dgate_up, bf16* out, const bf16* dout, const bf16* gate_up, int width) {
    backward(dgate_up, out, dout, gate_up, width);
}
