// A block's threads are fibers that run until all have ended. At each switch the order decides which
// fiber continues: always the first, always the last, or a random one. A fiber runs as far as it can
// before another moves, so whatever a missing barrier allows does happen in one order or another.
#include <unistd.h>

#include "machine.h"

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

Machine machine;

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

static void wait(const char* what, Site site) {
    Thread& me = machine.block->threads[machine.current];
    me.waits_for = what;
    me.site = site;
    machine.block->warps[machine.current / 32].ready &= ~(1u << (machine.current % 32));
    me.context.switch_to(machine.scheduler);
}

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

void set_value(int* counter, int value) {
    *counter = value;
    if (machine.order == Order::Forward) return;
    machine.yields = true;
    machine.block->threads[machine.current].context.switch_to(machine.scheduler);
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

}  // namespace emulator
