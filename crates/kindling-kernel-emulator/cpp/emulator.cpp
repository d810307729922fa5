// Runs a launch block by block. A block's threads are fibers that run until all have ended. At each
// switch the order decides which fiber continues: always the first, always the last, or a random
// one. A fiber runs as far as it can before another moves, so whatever a missing barrier allows
// does happen in one order or another.
#include "emulator.h"

#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <map>
#include <mutex>
#include <string>
#include <unistd.h>
#include <vector>

#include "fiber.h"
#include "kernels.h"

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
    Site site{};
    std::vector<Copy> copies;
    int groups = 0;  // Groups of copies committed so far.
};

struct Warp {
    unsigned char slots[2][32 * LANE_BYTES];  // Two turns: who reads the last one is not overtaken by the one after next.
    unsigned turn = 0;
    int arrived = 0;
    uint32_t ready = 0;
};

struct Machine {
    std::vector<Thread> threads{MOST_THREADS};
    Warp warps[MOST_THREADS / 32];
    unsigned count = 0, current = 0;
    unsigned at_barrier = 0, ended = 0;
    Order order = Order::Forward;
    uint64_t random = 0;
    Context scheduler;
    void (*call)(void**) = nullptr;
    void** arguments = nullptr;
    std::map<const void*, std::pair<size_t, size_t>> static_arrays;  // Key -> (offset, size).
    unsigned char* static_shared = nullptr;
    size_t static_used = 0;
    unsigned char* dynamic = nullptr;
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
    machine.threads[thread].waits_for = nullptr;
    machine.warps[thread / 32].ready |= 1u << (thread % 32);
}

void wait(const char* what, Site site) {
    Thread& me = machine.threads[machine.current];
    me.waits_for = what;
    me.site = site;
    machine.warps[machine.current / 32].ready &= ~(1u << (machine.current % 32));
    me.context.switch_to(machine.scheduler);
}

/// Returns the next thread to run, or `count` if none can.
unsigned choose() {
    unsigned warps = machine.count / 32, start = 0;
    if (machine.order == Order::Random) start = unsigned(draw() % warps);
    for (unsigned i = 0; i < warps; i++) {
        unsigned warp = machine.order == Order::Reverse ? warps - 1 - i : (start + i) % warps;
        uint32_t ready = machine.warps[warp].ready;
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
    Thread& me = machine.threads[machine.current];
    me.ended = true;
    machine.ended++;
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
        Thread& waiting = machine.threads[thread];
        if (waiting.ended) continue;
        machine.error = std::string(waiting.waits_for) + " is not reached by all: one waits at " +
                        place(thread, waiting.site);
        for (unsigned other = 0; other < machine.count; other++) {
            Thread& late = machine.threads[other];
            if (late.ended) machine.error += "; thread " + std::to_string(other) + " has ended";
            else if (late.site.line != waiting.site.line) machine.error += "; one waits at " + place(other, late.site);
            else continue;
            break;
        }
        return;
    }
}

bool run_block() {
    std::memset(machine.static_shared, POISON, STATIC_SHARED_BYTES);
    machine.static_arrays.clear();
    machine.static_used = machine.at_barrier = machine.ended = 0;
    for (unsigned thread = 0; thread < machine.count; thread++) {
        Thread& t = machine.threads[thread];
        if (!t.stack) t.stack = map_memory(STACK_BYTES);
        t.ended = false;
        t.copies.clear();
        t.groups = 0;
        t.context.enter_at(t.stack, thread_entry);
        set_ready(thread);
    }
    for (unsigned warp = 0; warp < machine.count / 32; warp++) machine.warps[warp].turn = machine.warps[warp].arrived = 0;
    while (machine.ended < machine.count) {
        machine.current = choose();
        if (machine.current == machine.count) {
            report_deadlock();
            return false;
        }
        threadIdx = {machine.current, 0, 0};
        machine.scheduler.switch_to(machine.threads[machine.current].context);
    }
    return true;
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
    if (++machine.at_barrier == machine.count) {
        machine.at_barrier = 0;
        for (unsigned thread = 0; thread < machine.count; thread++) {
            Thread& other = machine.threads[thread];
            if (thread != machine.current && other.site.line != site.line)
                fail(("__syncthreads: another thread waits at " + place(thread, other.site)).c_str(), site);
            set_ready(thread);
        }
        machine.threads[machine.current].site = site;
        machine.threads[machine.current].context.switch_to(machine.scheduler);
        return;
    }
    wait("__syncthreads", site);
}

const unsigned char* warp_exchange(const char* what, unsigned mask, const void* bytes, size_t size, Site site) {
    if (mask != 0xffffffffu) fail("only whole warps are emulated", site);
    Warp& warp = machine.warps[machine.current / 32];
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
        Thread& other = machine.threads[thread];
        if (thread != machine.current && (other.site.line != site.line || std::strcmp(other.waits_for, what) != 0))
            fail((std::string(what) + ": a lane of the warp waits at " + place(thread, other.site)).c_str(), site);
        set_ready(thread);
    }
    machine.threads[machine.current].context.switch_to(machine.scheduler);
    return slots;
}

void* shared_array(const void* key, size_t size) {
    auto found = machine.static_arrays.find(key);
    if (found == machine.static_arrays.end()) {
        size_t offset = machine.static_used;
        machine.static_used += (size + 31) / 16 * 16;
        if (machine.static_used > STATIC_SHARED_BYTES) fail("more than 48 KiB of static shared memory", {"", 0});
        found = machine.static_arrays.emplace(key, std::make_pair(offset, size)).first;
    }
    return machine.static_shared + found->second.first;
}

unsigned char* dynamic_shared() { return machine.dynamic; }

void start_copy(void* to, const void* from, int bytes) {
    if (reinterpret_cast<uintptr_t>(to) % 16 != 0 || (bytes > 0 && reinterpret_cast<uintptr_t>(from) % 16 != 0))
        fail("an asynchronous copy of 16 bytes is misaligned", {"", 0});
    std::memset(to, POISON, 16);
    Thread& me = machine.threads[machine.current];
    me.copies.push_back({to, from, bytes, me.groups});
}

void commit_copies() { machine.threads[machine.current].groups++; }

void wait_copies(int groups_left) {
    Thread& me = machine.threads[machine.current];
    std::vector<Copy> later;
    for (const Copy& copy : me.copies) {
        if (copy.group >= me.groups - groups_left) {
            later.push_back(copy);
            continue;
        }
        std::memcpy(copy.to, copy.from, size_t(copy.bytes));
        std::memset(static_cast<unsigned char*>(copy.to) + copy.bytes, 0, size_t(16 - copy.bytes));
    }
    me.copies.swap(later);
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

/// Runs the blocks until the first error.
static void run_blocks(const unsigned* grid, const unsigned char* base, size_t shared_bytes, uint64_t order) {
    if (sigsetjmp(machine.failed, 1) != 0) return;
    uint64_t blocks = uint64_t(grid[0]) * grid[1] * grid[2], shift = order > 1 ? draw() % blocks : 0;
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t index = order == 1 ? blocks - 1 - i : (i + shift) % blocks;
        blockIdx = {unsigned(index % grid[0]), unsigned(index / grid[0] % grid[1]), unsigned(index / grid[0] / grid[1])};
        std::memset(machine.dynamic, POISON, shared_bytes);
        if (!run_block()) return;
        if (!kindling_kernel_emulator_is_intact(base, machine.dynamic, shared_bytes, 0)) {
            machine.error = "a write outside of dynamic shared memory";
            return;
        }
    }
}

static void run_grid(const unsigned* grid, size_t shared_bytes, uint64_t order) {
    unsigned char* base = nullptr;
    machine.dynamic = kindling_kernel_emulator_allocate(shared_bytes, 0, &base);
    constexpr int COUNT = 4;
    const int signals[COUNT] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP};
    struct sigaction handler {}, before[COUNT];
    handler.sa_sigaction = on_fault;
    handler.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int i = 0; i < COUNT; i++) sigaction(signals[i], &handler, &before[i]);
    machine.running = true;
    run_blocks(grid, base, shared_bytes, order);
    machine.running = false;
    for (int i = 0; i < COUNT; i++) sigaction(signals[i], &before[i], nullptr);
    kindling_kernel_emulator_release(base, shared_bytes, 0);
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
        if (!machine.static_shared) machine.static_shared = map_memory(STATIC_SHARED_BYTES);
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
