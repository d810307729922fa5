// The table of kernels. The build script writes a .cpp per .cu that registers its kernels; argument
// types are deduced from the C++ signature.
#pragma once

#include <string>
#include <utility>

#include "emulator.h"

namespace emulator {

struct Kernel {
    const char* name;
    /// One letter per argument: p pointer, i int, u unsigned, l 64-bit integer, f float, d double.
    std::string signature;
    /// Calls the kernel with the values that `arguments` point to.
    void (*call)(void** arguments);
};

void add_kernel(Kernel kernel);

template <class T> constexpr char letter() {
    if constexpr (std::is_pointer_v<T>) return 'p';
    else if constexpr (std::is_same_v<T, int>) return 'i';
    else if constexpr (std::is_same_v<T, unsigned>) return 'u';
    else if constexpr (std::is_same_v<T, float>) return 'f';
    else if constexpr (std::is_same_v<T, double>) return 'd';
    else {
        static_assert(sizeof(T) == 8 && std::is_integral_v<T>, "no letter for this type of argument");
        return 'l';
    }
}

template <auto kernel> struct Caller;
template <class... A, void (*kernel)(A...)> struct Caller<kernel> {
    template <size_t... i> static void apply(void** arguments, std::index_sequence<i...>) {
        kernel(*static_cast<std::remove_const_t<A>*>(arguments[i])...);
    }
    static void call(void** arguments) { apply(arguments, std::index_sequence_for<A...>{}); }
    static std::string signature() { return {letter<A>()...}; }
};

}  // namespace emulator

#define ADD_KERNEL(kernel) \
    emulator::add_kernel({#kernel, emulator::Caller<&kernel>::signature(), emulator::Caller<&kernel>::call})
