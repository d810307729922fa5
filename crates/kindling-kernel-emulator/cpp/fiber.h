// A fiber: a stack, and a switch to and from it, in assembly on x86-64 (a few nanoseconds a switch)
// and by ucontext elsewhere.
#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace emulator {

constexpr size_t STACK_BYTES = 128 * 1024;

#if defined(__x86_64__)

// Saves callee-saved registers on the stack, stores its address in *from, and resumes `to`.
extern "C" void kindling_kernel_emulator_switch(void** from, void* to);

struct Context {
    void* stack_pointer = nullptr;
    void enter_at(unsigned char* stack, void (*entry)()) {
        auto* top = reinterpret_cast<void**>(stack + STACK_BYTES);
        *--top = nullptr;  // The entry never returns to this; it aligns the stack as after a call.
        *--top = reinterpret_cast<void*>(entry);
        for (int saved = 0; saved < 6; saved++) *--top = nullptr;
        stack_pointer = top;
    }
    void switch_to(Context& other) { kindling_kernel_emulator_switch(&stack_pointer, other.stack_pointer); }
};

#else

struct Context {
    ucontext_t context;
    void enter_at(unsigned char* stack, void (*entry)()) {
        getcontext(&context);
        context.uc_stack.ss_sp = stack;
        context.uc_stack.ss_size = STACK_BYTES;
        context.uc_link = nullptr;
        makecontext(&context, entry, 0);
    }
    void switch_to(Context& other) { swapcontext(&context, &other.context); }
};

#endif

inline unsigned char* map_memory(size_t bytes) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) abort();
    return static_cast<unsigned char*>(memory);
}

}  // namespace emulator
