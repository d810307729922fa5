// AdamW, one pass over a flat run. p, g, m, v: (n) f32; copy: (n) bf16 weights for matrix products,
// or null.
// settings: 7 floats in device memory, so that a captured graph can be replayed with new values:
// alpha, beta1, 1 - beta1, beta2, 1 - beta2, eps, 1 - lr weight_decay.
// clip: state of grad_norm, or null. A NaN factor leaves everything unchanged. clear: sets g to 0.
// Grid: any; block: 256 threads, 4 elements (16 bytes of f32) each at a time; no shared memory.
#include "kernels/elements.cuh"

namespace {

template <int N>
__device__ void update(float* __restrict__ p, bf16* __restrict__ copy, float* __restrict__ g, float* __restrict__ m,
                       float* __restrict__ v, long long n, const float* __restrict__ settings, float scale, int clear) {
    const float alpha = settings[0], beta1 = settings[1], rest1 = settings[2], beta2 = settings[3], rest2 = settings[4];
    const float eps = settings[5], keep = settings[6];
    for (long long at = (blockIdx.x * (long long)blockDim.x + threadIdx.x) * N; at < n;
         at += (long long)gridDim.x * blockDim.x * N) {
        float weight[N], grad[N], first[N], second[N];
        load<N>(weight, p + at);
        load<N>(grad, g + at);
        load<N>(first, m + at);
        load<N>(second, v + at);
#pragma unroll
        for (int i = 0; i < N; i++) {
            grad[i] *= scale;
            first[i] = first[i] * beta1 + grad[i] * rest1;
            second[i] = second[i] * beta2 + grad[i] * grad[i] * rest2;
            weight[i] = weight[i] * keep - alpha * first[i] / (sqrtf(second[i]) + eps);
            grad[i] = 0.0f;
        }
        store<N>(p + at, weight);
        store<N>(m + at, first);
        store<N>(v + at, second);
        if (copy) store<N>(copy + at, weight);
        if (clear) store<N>(g + at, grad);
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
adamw_step(float* p, bf16* copy, float* g, float* m, float* v, long long n, const float* settings, const double* clip,
           int clear) {
    const float scale = clip ? (float)clip[2] : 1.0f;
    if (scale != scale) return;
    const bool vectors = n % 4 == 0 && is_aligned<4>(p) && is_aligned<4>(copy) && is_aligned<4>(g) &&
                         is_aligned<4>(m) && is_aligned<4>(v);
    if (vectors) update<4>(p, copy, g, m, v, n, settings, scale, clear);
    else update<1>(p, copy, g, m, v, n, settings, scale, clear);
}
