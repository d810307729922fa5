// Memory that ends at a guard page.
#include <unistd.h>

#include "machine.h"

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
