// Log-softmax of each row. x, out, dx, dout: (rows, columns). dx = dout - exp(out) sum(dout).
// Grid: one block per row; block: up to 256 threads; shared: 64 floats. The second read of a row
// hits the cache.
#include "kernels/elements.cuh"
#include "kernels/reduce.cuh"

namespace {

template <class T> __device__ void forward(T* out, const T* x, int columns) {
    SHARED_ARRAY(float, largest, 32);
    SHARED_ARRAY(float, sums, 32);
    const long long row = (long long)blockIdx.x * columns;
    Exponentials e = {-INFINITY, 0.0f};
    for (int at = threadIdx.x; at < columns; at += blockDim.x) take_in<1>(e, {to_float(x[row + at])});
    e = block_merge(e, largest, sums);
    const float log_sum = __logf(e.sum);
    for (int at = threadIdx.x; at < columns; at += blockDim.x)
        out[row + at] = from_float<T>(to_float(x[row + at]) - e.largest - log_sum);
}

template <class T> __device__ void backward(T* dx, const T* dout, const T* out, int columns) {
    SHARED_ARRAY(float, partial, 32);
    const long long row = (long long)blockIdx.x * columns;
    float sum = 0.0f;
    for (int at = threadIdx.x; at < columns; at += blockDim.x) sum += to_float(dout[row + at]);
    sum = block_sum(sum, partial);
    for (int at = threadIdx.x; at < columns; at += blockDim.x)
        dx[row + at] = from_float<T>(to_float(dout[row + at]) - __expf(to_float(out[row + at])) * sum);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256) log_softmax_forward_f32(float* out, const float* x, int columns) {
    forward(out, x, columns);
}
extern "C" __global__ void __launch_bounds__(256) log_softmax_forward_bf16(bf16* out, const bf16* x, int columns) {
    forward(out, x, columns);
}
extern "C" __global__ void __launch_bounds__(256)
log_softmax_backward_f32(float* dx, const float* dout, const float* out, int columns) {
    backward(dx, dout, out, columns);
}
extern "C" __global__ void __launch_bounds__(256)
log_softmax_backward_bf16(bf16* dx, const bf16* dout, const bf16* out, int columns) {
    backward(dx, dout, out, columns);
}
