/*
 * Preloaded into a process (LD_PRELOAD), fails one file operation below a folder; which one is said
 * in preload.h.
 *
 *   KINDLING_FAULT_ROOT    the folder
 *   KINDLING_FAULT_ERRNO   the error number of the call that fails
 *
 * Counted are open for writing, write, fsync, fdatasync, syncfs, rename, mkdir and the mapping of a
 * file.
 */
#include "preload.h"
#include <sys/mman.h>

/* Returns whether the call on `path` is to fail, with errno set. */
static int fails(const char *path) {
  const char *number = getenv("KINDLING_FAULT_ERRNO");
  char whole[8192];
  if (!below_root(path, whole) || !is_the_call()) return 0;
  errno = number ? atoi(number) : EIO;
  return 1;
}

static int fails_fd(int fd) {
  char path[4096];
  return path_of(fd, path) && fails(path);
}

#define OPEN(name)                                         \
  int name(const char *path, int flags, ...) {             \
    REAL(name);                                            \
    va_list rest;                                          \
    va_start(rest, flags);                                 \
    mode_t mode = va_arg(rest, mode_t);                    \
    va_end(rest);                                          \
    if ((flags & O_ACCMODE) != O_RDONLY && fails(path)) return -1; \
    return real(path, flags, mode);                        \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                       \
  int name(int at, const char *path, int flags, ...) {     \
    REAL(name);                                            \
    va_list rest;                                          \
    va_start(rest, flags);                                 \
    mode_t mode = va_arg(rest, mode_t);                    \
    va_end(rest);                                          \
    if ((flags & O_ACCMODE) != O_RDONLY && fails(path)) return -1; \
    return real(at, path, flags, mode);                    \
  }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int fd, const void *bytes, size_t length) {
  REAL(write);
  return fails_fd(fd) ? -1 : real(fd, bytes, length);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
  REAL(writev);
  return fails_fd(fd) ? -1 : real(fd, parts, count);
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
  REAL(pwrite);
  return fails_fd(fd) ? -1 : real(fd, bytes, length, offset);
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
  REAL(pwrite64);
  return fails_fd(fd) ? -1 : real(fd, bytes, length, offset);
}
int fsync(int fd) {
  REAL(fsync);
  return fails_fd(fd) ? -1 : real(fd);
}
int fdatasync(int fd) {
  REAL(fdatasync);
  return fails_fd(fd) ? -1 : real(fd);
}
int syncfs(int fd) {
  REAL(syncfs);
  return fails_fd(fd) ? -1 : real(fd);
}
int rename(const char *from, const char *to) {
  REAL(rename);
  return fails(to) ? -1 : real(from, to);
}
int mkdir(const char *path, mode_t mode) {
  REAL(mkdir);
  return fails(path) ? -1 : real(path, mode);
}
void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset) {
  REAL(mmap64);
  if (fd >= 0 && !(protection & PROT_EXEC) && fails_fd(fd)) return MAP_FAILED;
  return real(address, length, protection, flags, fd, offset);
}

/* The engine calls renameat2 this way, which exchanges two folders. */
long syscall(long number, ...) {
  long (*real)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
  va_list rest;
  va_start(rest, number);
  long a[6];
  for (int i = 0; i < 6; i++) a[i] = va_arg(rest, long);
  va_end(rest);
  if (number == SYS_renameat2 && fails((const char *)a[3])) return -1;
  return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
