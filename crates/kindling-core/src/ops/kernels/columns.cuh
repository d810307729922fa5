// Column sums of a matrix in two steps, both in a fixed order: partial sums of runs of rows, then
// their sum.
#pragma once

/// sums[column] += sum over the rows of partial (rows, columns), f32. Grid: one block per 32
/// columns; block: 256 threads, warp w takes the w-th eighth of the rows.
static __device__ __forceinline__ void add_rows(float* sums, const float* partial, int rows, int columns) {
    SHARED_ARRAY(float, parts, 256);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, column = blockIdx.x * 32 + lane;
    float sum = 0.0f;
    if (column < columns) {
        const int end = int((long long)rows * (warp + 1) / 8);
#pragma unroll 4
        for (int row = int((long long)rows * warp / 8); row < end; row++) sum += partial[(long long)row * columns + column];
    }
    parts[threadIdx.x] = sum;
    __syncthreads();
    if (warp == 0 && column < columns) {
        sum = 0.0f;
        for (int part = 0; part < 8; part++) sum += parts[part * 32 + lane];
        sums[column] += sum;
    }
}
