// What the emulator's own files share: a launch, its blocks and their threads.
#pragma once

#include <csetjmp>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "emulator.h"
#include "fiber.h"
#include "warpgroup.h"

extern "C" unsigned char* kindling_kernel_emulator_allocate(size_t bytes, size_t offset, unsigned char** base);
extern "C" int kindling_kernel_emulator_is_intact(const unsigned char* base, const unsigned char* data, size_t bytes, size_t offset);
extern "C" void kindling_kernel_emulator_release(unsigned char* base, size_t bytes, size_t offset);

namespace emulator {

constexpr unsigned MOST_THREADS = 1024;
/// Maximum shared memory of a block on sm_80, and of the kernels named after Hopper.
constexpr size_t SHARED_BYTES = 163 * 1024, HOPPER_SHARED_BYTES = 227 * 1024;
constexpr size_t STATIC_SHARED_BYTES = 48 * 1024;
constexpr unsigned char POISON = 0xff;

enum class Order { Forward, Reverse, Random };

struct Copy { void* to; const void* from; int bytes; int group; };

struct Thread {
    Context context;
    unsigned char* stack = nullptr;
    bool ended = false;
    const char* waits_for = nullptr;  // Null while it can run.
    const int* counter = nullptr;     // What `wait_for_value` reads.
    int awaited = 0;
    Site site{};
    std::vector<Copy> copies;
    int groups = 0;  // Groups of copies committed so far.
    bool unpublished = false;  // Has waited for copies that products may not read yet.
    Products products;
};

struct Warp {
    unsigned char slots[2][32 * LANE_BYTES];  // Used in turn, so that lanes may still read one while the other is filled.
    unsigned turn = 0;
    int arrived = 0;
    uint32_t ready = 0;
};

/// A block that has started: its threads and its shared memory.
struct Block {
    std::vector<Thread> threads{MOST_THREADS};
    Warp warps[MOST_THREADS / 32];
    uint3 index{};
    unsigned at_barrier = 0, ended = 0;
    std::map<const void*, std::pair<size_t, size_t>> static_arrays;  // Key -> (offset, size).
    unsigned char* static_shared = map_memory(STATIC_SHARED_BYTES);
    size_t static_used = 0;
    unsigned char *dynamic = nullptr, *dynamic_base = nullptr;
};

struct Machine {
    /// Blocks that have started, in that order, and ended ones to reuse.
    std::vector<std::unique_ptr<Block>> started, spare;
    Block* block = nullptr;  // The one that runs.
    bool yields = false;     // Set when that block lets others run.
    unsigned count = 0, current = 0;
    size_t shared_bytes = 0;
    Order order = Order::Forward;
    uint64_t random = 0;
    Context scheduler;
    void (*call)(void**) = nullptr;
    void** arguments = nullptr;
    std::string error;
    sigjmp_buf failed;
    bool running = false;
};

extern Machine machine;

uint64_t draw();
void set_ready(unsigned thread);
/// Returns the next thread to run, or `count` if none can.
unsigned choose();
/// Where a fiber starts.
void thread_entry();
/// Describes where a thread is.
std::string place(unsigned thread, Site site);

}  // namespace emulator
