/*
 * Preloaded into a process (LD_PRELOAD), fails one allocation of the addon; which one is said in
 * preload.h. Node.js ends itself when it gets no memory, so only those who call from the addon are
 * refused.
 *
 *   KINDLING_FAULT_BYTES   allocations from this size on are counted
 *
 * Counted are malloc, calloc, realloc, posix_memalign and anonymous memory of mmap.
 */
#include "preload.h"
#include <sys/mman.h>

/* glibc's own functions: dlsym allocates, and so cannot be asked for them. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

/* Returns whether an allocation of `bytes` for the code at `caller` is to fail. */
static int fails(size_t bytes, void *caller) {
  const char *least = getenv("KINDLING_FAULT_BYTES");
  Dl_info library;
  if (!least || bytes < strtoul(least, NULL, 10)) return 0;
  if (!dladdr(caller, &library) || !library.dli_fname) return 0;
  if (!strstr(library.dli_fname, ".node") || !is_the_call()) return 0;
  errno = ENOMEM;
  return 1;
}
#define FAILS(bytes) fails(bytes, __builtin_return_address(0))

void *malloc(size_t size) { return FAILS(size) ? NULL : __libc_malloc(size); }

void *calloc(size_t count, size_t size) {
  return FAILS(count * size) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size) {
  return FAILS(size) ? NULL : __libc_realloc(memory, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
  if (FAILS(size)) return ENOMEM;
  *memory = __libc_memalign(alignment, size);
  return *memory ? 0 : ENOMEM;
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset) {
  REAL(mmap64);
  if (fd < 0 && FAILS(length)) return MAP_FAILED;
  return real(address, length, protection, flags, fd, offset);
}
