/*
 * Preloaded into a process (LD_PRELOAD), records every change below a folder, in order, with the
 * bytes written, for disk.js to rebuild what the disk holds after a power cut.
 *
 *   KINDLING_FAULT_ROOT    the folder
 *   KINDLING_FAULT_LOG     the record: lines "<op>\t<number>\t<length>\t<path>\t<path>\n", each
 *                          followed by <length> bytes; paths are below the folder
 */
#include "preload.h"
#include <pthread.h>

/* Held from a call to its record, so that the order is that of the calls. */
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

static void put(int fd, const void *bytes, size_t length) {
  const char *next = bytes;
  while (length > 0) {
    ssize_t done = syscall(SYS_write, fd, next, length);
    if (done <= 0) abort();
    next += done;
    length -= done;
  }
}

static void note(const char *op, long number, const char *path, const char *other,
                 const void *bytes, size_t length) {
  static int log = -1;
  const char *file = getenv("KINDLING_FAULT_LOG");
  char line[20000];
  if (log < 0 && file) log = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (log < 0) return;
  int size = snprintf(line, sizeof line, "%s\t%ld\t%zu\t%s\t%s\n", op, number, length, path, other);
  put(log, line, size);
  put(log, bytes, length);
}

/* Records a call on `path`, if it is below the root. */
static void note_path(const char *op, long number, const char *path) {
  char whole[8192];
  const char *below = below_root(path, whole);
  if (below) note(op, number, below, "", NULL, 0);
}

static void note_two(const char *op, const char *from, const char *to) {
  char a[8192], b[8192];
  const char *below_from = below_root(from, a), *below_to = below_root(to, b);
  if (below_from && below_to) note(op, 0, below_from, below_to, NULL, 0);
}

static void note_fd(const char *op, long number, int fd) {
  char path[4096];
  if (path_of(fd, path)) note_path(op, number, path);
}

/* Records bytes that were written and end at `end`. */
static void note_write(int fd, const void *bytes, size_t length, off_t end) {
  char path[4096], whole[8192];
  if (!path_of(fd, path)) return;
  const char *below = below_root(path, whole);
  if (below) note("write", end - (off_t)length, below, "", bytes, length);
}

/* Resolves a path relative to an open folder. */
static const char *resolve(int at, const char *path, char out[8192]) {
  char folder[4096];
  if (path[0] == '/' || at == AT_FDCWD || !path_of(at, folder)) return path;
  snprintf(out, 8192, "%s/%s", folder, path);
  return out;
}

#define CALL(type, call, noted)              \
  pthread_mutex_lock(&order);                \
  type result = call;                        \
  int error = errno;                         \
  if (result >= 0) { noted; }                \
  errno = error;                             \
  pthread_mutex_unlock(&order);              \
  return result
#define MODE                                 \
  va_list rest;                              \
  va_start(rest, flags);                     \
  mode_t mode = va_arg(rest, mode_t);        \
  va_end(rest)
#define OPENED(path) \
  if (flags & (O_CREAT | O_TRUNC)) note_path(flags & O_TRUNC ? "empty" : "create", 0, path)

#define OPEN(name)                                     \
  int name(const char *path, int flags, ...) {         \
    REAL(name);                                        \
    MODE;                                              \
    CALL(int, real(path, flags, mode), OPENED(path));  \
  }
OPEN(open)
OPEN(open64)
#define OPENAT(name)                                        \
  int name(int at, const char *path, int flags, ...) {      \
    REAL(name);                                             \
    MODE;                                                   \
    char whole[8192];                                       \
    const char *place = resolve(at, path, whole);           \
    CALL(int, real(at, path, flags, mode), OPENED(place));  \
  }
OPENAT(openat)
OPENAT(openat64)

#define HERE(fd) lseek(fd, 0, SEEK_CUR)
ssize_t write(int fd, const void *bytes, size_t length) {
  REAL(write);
  CALL(ssize_t, real(fd, bytes, length), note_write(fd, bytes, result, HERE(fd)));
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
  REAL(pwrite);
  CALL(ssize_t, real(fd, bytes, length, offset), note_write(fd, bytes, result, offset + result));
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
  REAL(pwrite64);
  CALL(ssize_t, real(fd, bytes, length, offset), note_write(fd, bytes, result, offset + result));
}
/* In parts: a short write is what callers expect. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
  for (int i = 0; i < count; i++)
    if (parts[i].iov_len > 0) return write(fd, parts[i].iov_base, parts[i].iov_len);
  return 0;
}
int fsync(int fd) {
  REAL(fsync);
  CALL(int, real(fd), note_fd("sync", 0, fd));
}
int fdatasync(int fd) {
  REAL(fdatasync);
  CALL(int, real(fd), note_fd("sync", 0, fd));
}
int syncfs(int fd) {
  REAL(syncfs);
  CALL(int, real(fd), note_fd("syncall", 0, fd));
}
int ftruncate(int fd, off_t length) {
  REAL(ftruncate);
  CALL(int, real(fd, length), note_fd("cut", length, fd));
}
int ftruncate64(int fd, off64_t length) {
  REAL(ftruncate64);
  CALL(int, real(fd, length), note_fd("cut", length, fd));
}
int rename(const char *from, const char *to) {
  REAL(rename);
  CALL(int, real(from, to), note_two("rename", from, to));
}
int link(const char *from, const char *to) {
  REAL(link);
  CALL(int, real(from, to), note_two("link", from, to));
}
int linkat(int at, const char *from, int to_at, const char *to, int flags) {
  REAL(linkat);
  char a[8192], b[8192];
  CALL(int, real(at, from, to_at, to, flags),
       note_two("link", resolve(at, from, a), resolve(to_at, to, b)));
}
int mkdir(const char *path, mode_t mode) {
  REAL(mkdir);
  CALL(int, real(path, mode), note_path("mkdir", 0, path));
}
int unlink(const char *path) {
  REAL(unlink);
  CALL(int, real(path), note_path("remove", 0, path));
}
int rmdir(const char *path) {
  REAL(rmdir);
  CALL(int, real(path), note_path("remove", 0, path));
}
int unlinkat(int at, const char *path, int flags) {
  REAL(unlinkat);
  char whole[8192];
  const char *place = resolve(at, path, whole);
  CALL(int, real(at, path, flags), note_path("remove", 0, place));
}

/* The engine calls renameat2 this way, which exchanges two folders. */
long syscall(long number, ...) {
  long (*real)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
  va_list rest;
  va_start(rest, number);
  long a[6];
  for (int i = 0; i < 6; i++) a[i] = va_arg(rest, long);
  va_end(rest);
  if (number != SYS_renameat2) return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  CALL(long, real(number, a[0], a[1], a[2], a[3], a[4], a[5]),
       note_two("exchange", (const char *)a[1], (const char *)a[3]));
}
