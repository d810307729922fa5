#include "silu/cuda.cu"

#include "kernels.h"

void add_silu() {
    ADD_KERNEL(silu_forward_f32);
    ADD_KERNEL(silu_forward_bf16);
    ADD_KERNEL(silu_backward_f32);
    ADD_KERNEL(silu_backward_bf16);
}
