// SGD, one pass over a flat run. p, g: (n) f32; copy: (n) bf16 weights for matrix products, or
// null.
// settings: 2 floats in device memory: the learning rate, 1 - rate weight_decay.
// clip: state of grad_norm, or null. A NaN factor leaves everything unchanged. clear: sets g to 0.
// Grid: any; block: 256 threads, 4 elements (16 bytes of f32) each at a time; no shared memory.
#include "kernels/elements.cuh"

namespace {

template <int N>
__device__ void update(float* __restrict__ p, bf16* __restrict__ copy, float* __restrict__ g, long long n, float rate,
                       float keep, int clear) {
    for (long long at = (blockIdx.x * (long long)blockDim.x + threadIdx.x) * N; at < n;
         at += (long long)gridDim.x * blockDim.x * N) {
        float weight[N], grad[N];
        load<N>(weight, p + at);
        load<N>(grad, g + at);
#pragma unroll
        for (int i = 0; i < N; i++) {
            weight[i] = weight[i] * keep - rate * grad[i];
            grad[i] = 0.0f;
        }
        store<N>(p + at, weight);
        if (copy) store<N>(copy + at, weight);
        if (clear) store<N>(g + at, grad);
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
sgd_step(float* p, bf16* copy, float* g, long long n, const float* settings, const double* clip, int clear) {
    const float scale = clip ? (float)clip[2] : 1.0f;
    if (scale != scale) return;
    const bool vectors = n % 4 == 0 && is_aligned<4>(p) && is_aligned<4>(copy) && is_aligned<4>(g);
    if (vectors) update<4>(p, copy, g, n, settings[0] * scale, settings[1], clear);
    else update<1>(p, copy, g, n, settings[0] * scale, settings[1], clear);
}
