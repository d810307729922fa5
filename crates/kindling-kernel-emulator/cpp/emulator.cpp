// Runs a launch block by block. A block's threads are fibers that run until all have ended. At each
// switch the order decides which fiber continues: always the first, always the last, or a random
// one. A fiber runs as far as it can before another moves, so whatever a missing barrier allows
// does happen in one order or another.
//
// A block that waits for another one (`wait_for_value`) is set aside while others run. In forward
// order it may not be: a GPU with room for one block at a time starts them in that order.
#include "emulator.h"

#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unistd.h>
#include <vector>

#include "fiber.h"
#include "kernels.h"
#include "warpgroup.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

#if defined(__x86_64__)
asm(R"(
.text
.globl kindling_kernel_emulator_switch
.type kindling_kernel_emulator_switch, @function
kindling_kernel_emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size kindling_kernel_emulator_switch, .-kindling_kernel_emulator_switch
)");
#endif

extern "C" unsigned char* kindling_kernel_emulator_allocate(size_t bytes, size_t offset, unsigned char** base);
extern "C" int kindling_kernel_emulator_is_intact(const unsigned char* base, const unsigned char* data, size_t bytes, size_t offset);
extern "C" void kindling_kernel_emulator_release(unsigned char* base, size_t bytes, size_t offset);

namespace emulator {
namespace {

constexpr unsigned MOST_THREADS = 1024;
/// Maximum shared memory of a block on sm_80.
constexpr size_t SHARED_BYTES = 163 * 1024;
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
    unsigned char slots[2][32 * LANE_BYTES];  // Two turns: who reads the last one is not overtaken by the one after next.
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
    /// Blocks that have started, in that order, and those to start again with.
    std::vector<std::unique_ptr<Block>> started, spare;
    Block* block = nullptr;  // The one that runs.
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

Machine machine;
std::mutex one_launch;

uint64_t draw() {
    machine.random += 0x9e3779b97f4a7c15ull;
    uint64_t z = machine.random;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

void set_ready(unsigned thread) {
    machine.block->threads[thread].waits_for = nullptr;
    machine.block->warps[thread / 32].ready |= 1u << (thread % 32);
}

void wait(const char* what, Site site) {
    Thread& me = machine.block->threads[machine.current];
    me.waits_for = what;
    me.site = site;
    machine.block->warps[machine.current / 32].ready &= ~(1u << (machine.current % 32));
    me.context.switch_to(machine.scheduler);
}

/// Returns the next thread to run, or `count` if none can.
unsigned choose() {
    unsigned warps = machine.count / 32, start = 0;
    if (machine.order == Order::Random) start = unsigned(draw() % warps);
    for (unsigned i = 0; i < warps; i++) {
        unsigned warp = machine.order == Order::Reverse ? warps - 1 - i : (start + i) % warps;
        uint32_t ready = machine.block->warps[warp].ready;
        if (ready == 0) continue;
        unsigned lane = unsigned(__builtin_ctz(ready));
        if (machine.order == Order::Reverse) lane = 31 - unsigned(__builtin_clz(ready));
        if (machine.order == Order::Random) {
            unsigned skip = unsigned(draw() % unsigned(__builtin_popcount(ready)));
            for (; skip > 0; skip--) ready &= ready - 1;
            lane = unsigned(__builtin_ctz(ready));
        }
        return 32 * warp + lane;
    }
    return machine.count;
}

void thread_entry() {
    machine.call(machine.arguments);
    machine.block->threads[machine.current].ended = true;
    machine.block->ended++;
    wait("the end", {"", 0});
    abort();
}

std::string place(unsigned thread, Site site) {
    const char* name = std::strrchr(site.file, '/');
    return std::string(name ? name + 1 : site.file) + ":" + std::to_string(site.line) + ", block (" +
           std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) + ", " + std::to_string(blockIdx.z) +
           "), thread " + std::to_string(thread);
}

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

/// Takes a block from those that have started.
void end_block(size_t at) {
    Block& block = *machine.started[at];
    kindling_kernel_emulator_release(block.dynamic_base, machine.shared_bytes, 0);
    machine.spare.push_back(std::move(machine.started[at]));
    machine.started.erase(machine.started.begin() + long(at));
}

/// Lets the threads run whose value has come, and returns whether any wait for one.
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

enum class Outcome { Ended, Waits, Failed };

/// Runs a block until it ends or only another block can let it continue.
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

void fail(const char* message, Site site) {
    machine.error = std::string(message) + " at " + place(machine.current, site);
    siglongjmp(machine.failed, 1);
}

void block_barrier(Site site) {
    if (++machine.block->at_barrier == machine.count) {
        machine.block->at_barrier = 0;
        for (unsigned thread = 0; thread < machine.count; thread++) {
            Thread& other = machine.block->threads[thread];
            if (thread != machine.current && other.site.line != site.line)
                fail(("__syncthreads: another thread waits at " + place(thread, other.site)).c_str(), site);
            set_ready(thread);
        }
        machine.block->threads[machine.current].site = site;
        machine.block->threads[machine.current].context.switch_to(machine.scheduler);
        return;
    }
    wait("__syncthreads", site);
}

void wait_for_value(const int* counter, int value, Site site) {
    if (*counter == value) return;
    Thread& me = machine.block->threads[machine.current];
    me.counter = counter;
    me.awaited = value;
    wait("a turn", site);
}

const unsigned char* warp_exchange(const char* what, unsigned mask, const void* bytes, size_t size, Site site) {
    if (mask != 0xffffffffu) fail("only whole warps are emulated", site);
    Warp& warp = machine.block->warps[machine.current / 32];
    unsigned char* slots = warp.slots[warp.turn % 2];
    if (size > 0) std::memcpy(slots + (machine.current % 32) * LANE_BYTES, bytes, size);
    if (++warp.arrived < 32) {
        wait(what, site);
        return slots;
    }
    warp.arrived = 0;
    warp.turn++;
    unsigned first = machine.current / 32 * 32;
    for (unsigned thread = first; thread < first + 32; thread++) {
        Thread& other = machine.block->threads[thread];
        if (thread != machine.current && (other.site.line != site.line || std::strcmp(other.waits_for, what) != 0))
            fail((std::string(what) + ": a lane of the warp waits at " + place(thread, other.site)).c_str(), site);
        set_ready(thread);
    }
    machine.block->threads[machine.current].context.switch_to(machine.scheduler);
    return slots;
}

void* shared_array(const void* key, size_t size) {
    auto found = machine.block->static_arrays.find(key);
    if (found == machine.block->static_arrays.end()) {
        size_t offset = machine.block->static_used;
        machine.block->static_used += (size + 31) / 16 * 16;
        if (machine.block->static_used > STATIC_SHARED_BYTES) fail("more than 48 KiB of static shared memory", {"", 0});
        found = machine.block->static_arrays.emplace(key, std::make_pair(offset, size)).first;
    }
    return machine.block->static_shared + found->second.first;
}

unsigned char* dynamic_shared() { return machine.block->dynamic; }

void start_copy(void* to, const void* from, int bytes) {
    if (reinterpret_cast<uintptr_t>(to) % 16 != 0 || (bytes > 0 && reinterpret_cast<uintptr_t>(from) % 16 != 0))
        fail("an asynchronous copy of 16 bytes is misaligned", {"", 0});
    std::memset(to, POISON, 16);
    Thread& me = machine.block->threads[machine.current];
    me.copies.push_back({to, from, bytes, me.groups});
}

void commit_copies() { machine.block->threads[machine.current].groups++; }

void wait_copies(int groups_left) {
    Thread& me = machine.block->threads[machine.current];
    std::vector<Copy> later;
    for (const Copy& copy : me.copies) {
        if (copy.group >= me.groups - groups_left) {
            later.push_back(copy);
            continue;
        }
        std::memcpy(copy.to, copy.from, size_t(copy.bytes));
        std::memset(static_cast<unsigned char*>(copy.to) + copy.bytes, 0, size_t(16 - copy.bytes));
        me.unpublished = true;
    }
    me.copies.swap(later);
}

Products& products() { return machine.block->threads[machine.current].products; }

void publish_copies() { machine.block->threads[machine.current].unpublished = false; }

void check_published(const char* file, int line) {
    for (unsigned thread = 0; thread < machine.count; thread++)
        if (machine.block->threads[thread].unpublished) fail("products follow copies that a thread has not published", {file, line});
}

std::map<std::string, Kernel>& kernels() {
    static std::map<std::string, Kernel> table;
    return table;
}

void add_kernel(Kernel kernel) { kernels()[kernel.name] = kernel; }
void add_kernels();

}  // namespace emulator

using namespace emulator;

/// Allocates `bytes` that end at a guard page and start `offset` bytes past a multiple of 16,
/// poisoned before and after. `base` is what `kindling_kernel_emulator_release` and
/// `kindling_kernel_emulator_is_intact` take.
extern "C" unsigned char* kindling_kernel_emulator_allocate(size_t bytes, size_t offset, unsigned char** base) {
    size_t page = size_t(sysconf(_SC_PAGESIZE));
    size_t room = (offset + bytes + 15) / 16 * 16, pages = (room + page - 1) / page;
    unsigned char* memory = map_memory((pages + 2) * page);
    mprotect(memory, page, PROT_NONE);
    mprotect(memory + (pages + 1) * page, page, PROT_NONE);
    std::memset(memory + page, POISON, pages * page);
    *base = memory;
    return memory + (pages + 1) * page - room + offset;
}

static size_t pages_of(size_t bytes, size_t offset) {
    size_t page = size_t(sysconf(_SC_PAGESIZE));
    return ((offset + bytes + 15) / 16 * 16 + page - 1) / page;
}

extern "C" int kindling_kernel_emulator_is_intact(const unsigned char* base, const unsigned char* data, size_t bytes, size_t offset) {
    size_t page = size_t(sysconf(_SC_PAGESIZE));
    const unsigned char* end = base + (pages_of(bytes, offset) + 1) * page;
    for (const unsigned char* at = base + page; at < data; at++)
        if (*at != POISON) return 0;
    for (const unsigned char* at = data + bytes; at < end; at++)
        if (*at != POISON) return 0;
    return 1;
}

extern "C" void kindling_kernel_emulator_release(unsigned char* base, size_t bytes, size_t offset) {
    munmap(base, (pages_of(bytes, offset) + 2) * size_t(sysconf(_SC_PAGESIZE)));
}

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
        // The next block to start; and then those that wait, from a random one on.
        const bool starts = next < blocks;
        if (starts) {
            const uint64_t index = order == 1 ? blocks - 1 - next : (next + shift) % blocks;
            next++;
            start_block({unsigned(index % grid[0]), unsigned(index / grid[0] % grid[1]), unsigned(index / grid[0] / grid[1])});
        }
        const size_t count = machine.started.size();
        const size_t first = starts ? count - 1 : order > 1 ? size_t(draw() % count) : 0;
        bool progress = false;
        for (size_t i = 0; i < count && !progress; i++) {
            const size_t at = (first + i) % count;
            switch (run_block(*machine.started[at])) {
            case Outcome::Failed: return;
            case Outcome::Ended:
                end_block(at);
                progress = true;
                break;
            case Outcome::Waits: break;
            }
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
    else if (shared_bytes > SHARED_BYTES) machine.error = "more shared memory than sm_80 has";
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
