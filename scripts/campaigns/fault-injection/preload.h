/*
 * Shared by the preloaded libraries: the real functions, paths below KINDLING_FAULT_ROOT, and which
 * call fails:
 *
 *   KINDLING_FAULT_AT      the number of the call that fails, from 1; 0: none does
 *   KINDLING_FAULT_COUNT   a file that gets a byte for every call
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* Returns the path from the root on, or NULL if it is not below the root. */
static const char *below_root(const char *path, char whole[8192]) {
  const char *root = getenv("KINDLING_FAULT_ROOT");
  char cwd[4096];
  if (!root || !path) return NULL;
  if (path[0] != '/') {
    if (!getcwd(cwd, sizeof cwd)) return NULL;
    snprintf(whole, 8192, "%s/%s", cwd, path);
  } else {
    snprintf(whole, 8192, "%s", path);
  }
  size_t length = strlen(root);
  if (strncmp(whole, root, length) != 0) return NULL;
  return whole[length] == '/' ? whole + length + 1 : whole[length] == 0 ? whole + length : NULL;
}

/* Writes the path of an open file to `path`; returns whether it has one. */
__attribute__((unused)) static int path_of(int fd, char path[4096]) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, 4095);
  if (length <= 0) return 0;
  path[length] = 0;
  return 1;
}

/* System calls that no preloaded library sees, and that allocate nothing. */
static long raw_open(const char *path) {
  long fd, flags = O_WRONLY | O_CREAT | O_APPEND;
  __asm__ volatile("syscall" : "=a"(fd) : "a"(SYS_open), "D"(path), "S"(flags), "d"(0600)
                   : "rcx", "r11", "memory");
  return fd;
}

static void raw_note(long fd) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(SYS_write), "D"(fd), "S"("."), "d"(1L)
                   : "rcx", "r11", "memory");
}

/* Counts a call; returns whether it is the one that is to fail. */
__attribute__((unused)) static int is_the_call(void) {
  static atomic_long calls, counter = -2;
  const char *at = getenv("KINDLING_FAULT_AT"), *count = getenv("KINDLING_FAULT_COUNT");
  if (!at) return 0;
  if (count && counter == -2) counter = raw_open(count);
  if (counter >= 0) raw_note(counter);
  return atomic_fetch_add(&calls, 1) + 1 == atol(at);
}
