// Runs a launch block by block. A block that waits for another one (`wait_for_value`) is set aside
// while others run. So is a block that others may have waited for (`set_value`), except in forward
// order. In forward order no block may wait for a later one: a GPU with room for one block at a
// time starts them in that order.
#include <csignal>
#include <cstdio>
#include <mutex>

#include "kernels.h"
#include "machine.h"

namespace emulator {
namespace {

std::mutex one_launch;

/// Reports a deadlock: which threads wait where, and for what.
void report_deadlock() {
    for (unsigned thread = 0; thread < machine.count; thread++) {
        Thread& waiting = machine.block->threads[thread];
        if (waiting.ended) continue;
        machine.error = std::string(waiting.waits_for) + " is not reached by all: one waits at " +
                        place(thread, waiting.site);
        for (unsigned other = 0; other < machine.count; other++) {
            Thread& late = machine.block->threads[other];
            if (late.ended) machine.error += "; thread " + std::to_string(other) + " has ended";
            else if (late.site.line != waiting.site.line) machine.error += "; one waits at " + place(other, late.site);
            else continue;
            break;
        }
        return;
    }
}

void start_block(uint3 index) {
    if (machine.spare.empty()) machine.spare.push_back(std::make_unique<Block>());
    machine.started.push_back(std::move(machine.spare.back()));
    machine.spare.pop_back();
    Block& block = *(machine.block = machine.started.back().get());
    block.index = index;
    block.dynamic = kindling_kernel_emulator_allocate(machine.shared_bytes, 0, &block.dynamic_base);
    std::memset(block.static_shared, POISON, STATIC_SHARED_BYTES);
    block.static_arrays.clear();
    block.static_used = block.at_barrier = block.ended = 0;
    for (unsigned thread = 0; thread < machine.count; thread++) {
        Thread& t = block.threads[thread];
        if (!t.stack) t.stack = map_memory(STACK_BYTES);
        t.ended = false;
        t.counter = nullptr;
        t.copies.clear();
        t.groups = 0;
        t.unpublished = false;
        t.products = {};
        t.context.enter_at(t.stack, thread_entry);
        set_ready(thread);
    }
    for (unsigned warp = 0; warp < machine.count / 32; warp++) block.warps[warp].turn = block.warps[warp].arrived = 0;
}

/// Removes a block from those that have started and keeps it for reuse.
void end_block(size_t at) {
    Block& block = *machine.started[at];
    kindling_kernel_emulator_release(block.dynamic_base, machine.shared_bytes, 0);
    machine.spare.push_back(std::move(machine.started[at]));
    machine.started.erase(machine.started.begin() + long(at));
}

/// Lets threads run whose counter has the value that they wait for. Returns whether any thread was
/// waiting for one.
bool look_at_counters() {
    bool waiting = false;
    for (unsigned thread = 0; thread < machine.count; thread++) {
        Thread& t = machine.block->threads[thread];
        if (t.counter == nullptr) continue;
        waiting = true;
        if (*t.counter != t.awaited) continue;
        t.counter = nullptr;
        set_ready(thread);
    }
    return waiting;
}

enum class Outcome { Ended, Waits, Yields, Failed };

/// Runs a block until it ends, fails, lets other blocks run, or waits for one.
Outcome run_block(Block& block) {
    machine.block = &block;
    blockIdx = block.index;
    while (block.ended < machine.count) {
        machine.current = choose();
        if (machine.current == machine.count) {
            const bool waiting = look_at_counters();
            machine.current = choose();
            if (machine.current == machine.count && waiting) return Outcome::Waits;
        }
        if (machine.current == machine.count) {
            report_deadlock();
            return Outcome::Failed;
        }
        threadIdx = {machine.current, 0, 0};
        machine.scheduler.switch_to(block.threads[machine.current].context);
        if (machine.yields) {
            machine.yields = false;
            return Outcome::Yields;
        }
    }
    if (kindling_kernel_emulator_is_intact(block.dynamic_base, block.dynamic, machine.shared_bytes, 0)) return Outcome::Ended;
    machine.error = "a write outside of dynamic shared memory";
    return Outcome::Failed;
}

/// A fault inside a kernel is an error of the kernel.
void on_fault(int signal, siginfo_t*, void*) {
    if (!machine.running) {
        std::signal(signal, SIG_DFL);
        return;
    }
    machine.error = std::string(signal == SIGILL || signal == SIGTRAP ? "an index outside an array, or a misaligned access"
                                                 : "an access outside of a buffer, or a misaligned one") +
                    ": block (" + std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) + ", " +
                    std::to_string(blockIdx.z) + "), thread " + std::to_string(machine.current);
    siglongjmp(machine.failed, 1);
}

}  // namespace

std::map<std::string, Kernel>& kernels() {
    static std::map<std::string, Kernel> table;
    return table;
}

void add_kernel(Kernel kernel) { kernels()[kernel.name] = kernel; }
void add_kernels();

}  // namespace emulator

using namespace emulator;

/// Returns the kernel's argument types, one letter each (kernels.h), or null if there is no such
/// kernel.
extern "C" const char* kindling_kernel_emulator_signature(const char* name) {
    std::lock_guard<std::mutex> guard(one_launch);
    if (kernels().empty()) add_kernels();
    auto found = kernels().find(name);
    return found == kernels().end() ? nullptr : found->second.signature.c_str();
}

/// Returns the name of kernel `index`, or null after the last.
extern "C" const char* kindling_kernel_emulator_kernel_name(size_t index) {
    std::lock_guard<std::mutex> guard(one_launch);
    if (kernels().empty()) add_kernels();
    for (auto& entry : kernels())
        if (index-- == 0) return entry.first.c_str();
    return nullptr;
}

/// Reports blocks that wait for each other, or for one that would start later.
static void report_waiting() {
    for (unsigned thread = 0; thread < machine.count; thread++) {
        const Thread& waiting = machine.block->threads[thread];
        if (waiting.counter == nullptr) continue;
        machine.error = "a turn does not come before later blocks run: one waits at " + place(thread, waiting.site);
        return;
    }
}

static __attribute__((noinline)) void run_blocks(const unsigned* grid, uint64_t order) {
    const uint64_t blocks = uint64_t(grid[0]) * grid[1] * grid[2], shift = order > 1 ? draw() % blocks : 0;
    uint64_t next = 0;
    while (next < blocks || !machine.started.empty()) {
        // Runs the next block to start, then those that have started. Once all have, the random
        // orders begin with a random one.
        const bool starts = next < blocks;
        if (starts) {
            const uint64_t index = order == 1 ? blocks - 1 - next : (next + shift) % blocks;
            next++;
            start_block({unsigned(index % grid[0]), unsigned(index / grid[0] % grid[1]), unsigned(index / grid[0] / grid[1])});
        }
        const size_t count = machine.started.size();
        const size_t first = starts ? count - 1 : order > 1 ? size_t(draw() % count) : 0;
        bool progress = false;
        for (size_t i = 0; i < count; i++) {
            const size_t at = (first + i) % count;
            const Outcome outcome = run_block(*machine.started[at]);
            if (outcome == Outcome::Failed) return;
            progress = progress || outcome != Outcome::Waits;
            if (outcome != Outcome::Ended) continue;
            end_block(at);
            break;
        }
        if (!progress && (order == 0 || next == blocks)) return report_waiting();
    }
}

/// Runs the blocks until the first error, which may jump back to here.
static void try_blocks(const unsigned* grid, uint64_t order) {
    if (sigsetjmp(machine.failed, 1) == 0) run_blocks(grid, order);
}

static void run_grid(const unsigned* grid, size_t shared_bytes, uint64_t order) {
    machine.shared_bytes = shared_bytes;
    constexpr int COUNT = 4;
    const int signals[COUNT] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP};
    struct sigaction handler {}, before[COUNT];
    handler.sa_sigaction = on_fault;
    handler.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int i = 0; i < COUNT; i++) sigaction(signals[i], &handler, &before[i]);
    machine.running = true;
    try_blocks(grid, order);
    machine.running = false;
    for (int i = 0; i < COUNT; i++) sigaction(signals[i], &before[i], nullptr);
    while (!machine.started.empty()) end_block(machine.started.size() - 1);
}

/// Runs a launch. order: 0 forward, 1 reverse, otherwise a seed. Returns 0, or 1 with the error in
/// `message`.
extern "C" int kindling_kernel_emulator_launch(const char* name, const unsigned* grid, unsigned block, size_t shared_bytes,
                                        void** arguments, uint64_t order, char* message, size_t message_bytes) {
    std::lock_guard<std::mutex> guard(one_launch);
    machine.error.clear();
    auto found = kernels().find(name);
    if (found == kernels().end()) machine.error = "no such kernel";
    else if (block == 0 || block % 32 != 0 || block > MOST_THREADS) machine.error = "a block has to be 1 to 32 whole warps";
    else if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0) machine.error = "an empty grid";
    else if (grid[1] > 65535 || grid[2] > 65535) machine.error = "a grid of more than 65535 in y or z";
    else if (shared_bytes > (std::strstr(name, "_hopper_") != nullptr ? HOPPER_SHARED_BYTES : SHARED_BYTES))
        machine.error = "more shared memory than the device has";
    if (machine.error.empty()) {
        machine.count = block;
        machine.order = order == 0 ? Order::Forward : order == 1 ? Order::Reverse : Order::Random;
        machine.random = order;
        machine.call = found->second.call;
        machine.arguments = arguments;
        blockDim = {block, 1, 1};
        gridDim = {grid[0], grid[1], grid[2]};
        run_grid(grid, shared_bytes, order);
    }
    if (machine.error.empty()) return 0;
    std::snprintf(message, message_bytes, "%s: %s", name, machine.error.c_str());
    return 1;
}
