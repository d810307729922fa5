// All kernels there are.
void add_planted();
void add_silu();

namespace emulator {

void add_kernels() {
    add_planted();
    add_silu();
}

}  // namespace emulator
