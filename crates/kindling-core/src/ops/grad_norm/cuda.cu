// Sum of squares of the gradients, then the norm and the clip factor, which stay on the device.
// state: 3 doubles: the sum of squares, the norm, the factor. The factor is NaN if the norm is not
// finite, and updates then change nothing.
#include "kernels/elements.cuh"
#include "kernels/reduce.cuh"

namespace {

template <int N> __device__ float squares(const float* g, long long n) {
    float sum = 0.0f;
    for (long long at = (blockIdx.x * (long long)blockDim.x + threadIdx.x) * N; at < n;
         at += (long long)gridDim.x * blockDim.x * N) {
        float v[N];
        load<N>(v, g + at);
#pragma unroll
        for (int i = 0; i < N; i++) sum += v[i] * v[i];
    }
    return sum;
}

}  // namespace

/// partial[block]: the sum of squares of the block's elements of g (n). A thread sums at most a few
/// hundred elements in f32; the rest is f64. Grid: any; block: 256 threads; shared: 32 doubles.
extern "C" __global__ void __launch_bounds__(256) grad_norm_squares(double* partial, const float* g, long long n) {
    SHARED_ARRAY(double, sums, 32);
    const float own = n % 8 == 0 && is_aligned<8>(g) ? squares<8>(g, n) : squares<1>(g, n);
    const double sum = block_sum((double)own, sums);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

/// Computes state from the partial sums. max_norm 0 disables clipping. Grid: one block; block: 256
/// threads; shared: 32 doubles.
extern "C" __global__ void __launch_bounds__(256)
grad_norm_clip_factor(double* state, const double* partial, int blocks, float max_norm) {
    SHARED_ARRAY(double, sums, 32);
    double sum = 0.0;
    for (int block = threadIdx.x; block < blocks; block += blockDim.x) sum += partial[block];
    sum = block_sum(sum, sums);
    if (threadIdx.x == 0) {
        const double norm = sqrt(sum);
        state[0] = sum;
        state[1] = norm;
        const double factor = max_norm > 0.0f && norm > max_norm ? max_norm / (norm + 1e-6) : 1.0;
        state[2] = norm - norm == 0.0 ? factor : norm - norm;
    }
}

/// g *= state's factor if that is below 1; a NaN leaves g unchanged. Grid: any; block: 256 threads;
/// no shared memory.
extern "C" __global__ void __launch_bounds__(256) grad_norm_scale(float* g, const double* state, long long n) {
    const float factor = (float)state[2];
    if (!(factor < 1.0f)) return;
    const long long step = (long long)gridDim.x * blockDim.x;
    for (long long at = blockIdx.x * (long long)blockDim.x + threadIdx.x; at < n; at += step) g[at] *= factor;
}
