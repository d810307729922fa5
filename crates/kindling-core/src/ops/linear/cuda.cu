// The bias of a linear layer, whose products cuBLASLt computes. out, dout: (rows, outputs); bias,
// dbias: (outputs) f32.
#include "kernels/elements.cuh"
#include "kernels/columns.cuh"

namespace {

/// Adds the bias to a row. Grid: one block per row; block: up to 256 threads; no shared memory.
template <class T> __device__ void add_bias(T* out, const float* bias, int outputs) {
    T* row = out + (long long)blockIdx.x * outputs;
    for (int at = threadIdx.x; at < outputs; at += blockDim.x) row[at] = from_float<T>(to_float(row[at]) + bias[at]);
}

/// partial (gridDim.y, outputs): sums over runs of rows. Grid: (outputs / 256 rounded up, runs);
/// block: 256 threads.
template <class T> __device__ void sum_rows(float* partial, const T* dout, int rows, int outputs) {
    const int column = blockIdx.x * 256 + threadIdx.x;
    if (column >= outputs) return;
    const int end = int((long long)rows * (blockIdx.y + 1) / gridDim.y);
    float sum = 0.0f;
#pragma unroll 4
    for (int row = int((long long)rows * blockIdx.y / gridDim.y); row < end; row++)
        sum += to_float(dout[(long long)row * outputs + column]);
    partial[(long long)blockIdx.y * outputs + column] = sum;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256) linear_add_bias_f32(float* out, const float* bias, int outputs) {
    add_bias(out, bias, outputs);
}
extern "C" __global__ void __launch_bounds__(256) linear_add_bias_bf16(bf16* out, const float* bias, int outputs) {
    add_bias(out, bias, outputs);
}
extern "C" __global__ void __launch_bounds__(256)
linear_sum_rows_f32(float* partial, const float* dout, int rows, int outputs) {
    sum_rows(partial, dout, rows, outputs);
}
extern "C" __global__ void __launch_bounds__(256)
linear_sum_rows_bf16(float* partial, const bf16* dout, int rows, int outputs) {
    sum_rows(partial, dout, rows, outputs);
}
/// dbias += the partial sums. Grid: outputs / 32, rounded up; block: 256 threads.
extern "C" __global__ void __launch_bounds__(256)
linear_add_partial(float* dbias, const float* partial, int runs, int outputs) {
    add_rows(dbias, partial, runs, outputs);
}
