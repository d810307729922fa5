/* Shared by the preloaded libraries: the real functions, and paths below KINDLING_FAULT_ROOT. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
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
