// Rotary position embedding on interleaved pairs, in place over the first `rotated` elements of
// each row. x: (rows, row_width); cos, sin: (positions, head_size) f32, equal for both elements of
// a pair. Position of a row: first_position + row % positions. direction: 1, or -1 for the
// gradient.
// Grid: one block per row; block: up to 256 threads, 8 elements (16 bytes of bf16) each at a time;
// no shared memory.
#include "kernels/elements.cuh"

namespace {

template <int N, class T>
__device__ void rotate_row(T* row, const float* cos, const float* sin, int rotated, int head_size, float direction) {
    for (int at = threadIdx.x * N; at < rotated; at += blockDim.x * N) {
        const int in_head = at % head_size;
        float v[N], c[N], s[N];
        load<N>(v, row + at);
        load<N>(c, cos + in_head);
        load<N>(s, sin + in_head);
#pragma unroll
        for (int i = 0; i < N; i += 2) {
            const float low = v[i] * c[i] - v[i + 1] * s[i] * direction;
            v[i + 1] = v[i] * s[i] * direction + v[i + 1] * c[i];
            v[i] = low;
        }
        store<N>(row + at, v);
    }
}

template <class T>
__device__ void rotate(T* x, const float* cos, const float* sin, int row_width, int rotated, int head_size,
                       int positions, int first_position, float direction) {
    T* row = x + (long long)blockIdx.x * row_width;
    const long long angles = (long long)(first_position + int(blockIdx.x % unsigned(positions))) * head_size;
    if (row_width % 8 == 0 && head_size % 8 == 0 && is_aligned<8>(x) && is_aligned<8>(cos) && is_aligned<8>(sin))
        rotate_row<8>(row, cos + angles, sin + angles, rotated, head_size, direction);
    else
        rotate_row<2>(row, cos + angles, sin + angles, rotated, head_size, direction);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
rope_rotate_f32(float* x, const float* cos, const float* sin, int row_width, int rotated, int head_size, int positions,
                int first_position, float direction) {
    rotate(x, cos, sin, row_width, rotated, head_size, positions, first_position, direction);
}
extern "C" __global__ void __launch_bounds__(256)
rope_rotate_bf16(bf16* x, const float* cos, const float* sin, int row_width, int rotated, int head_size, int positions,
                 int first_position, float direction) {
    rotate(x, cos, sin, row_width, rotated, head_size, positions, first_position, direction);
}
