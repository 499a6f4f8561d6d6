// Between a program and its disk: counts, fails, kills at, and records what is done below a folder.
//
//   LD_PRELOAD=faulty.so python ...      see faulty.py, which compiles it and speaks to it
//
// Whatever calls the C library is seen: Python, NumPy, SQLite inside of apsw, TensorStore under
// Orbax. Nothing of the program is changed for it, and without the library nothing of it is there.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MAKE = 1, WRITE = 2, SYNC = 4, RENAME = 8, REMOVE = 16, MKDIR = 32, RESIZE = 64, READ = 128,
       NOTE = 256 };

static char root[PATH_MAX];
static size_t root_length;
static atomic_long seen;
static long target, kill_at;
static int failure, sticky, torn, log_file = -1;
static unsigned kinds;
static atomic_int fired;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

// ---- What is told from outside ----

void faulty_watch(const char *folder, unsigned which) {
  root_length = 0;
  strncpy(root, folder, sizeof root - 1);
  kinds = which;
  target = kill_at = 0;
  fired = 0;
  atomic_store(&seen, 0);
  root_length = strlen(root);
}
void faulty_fail(long n, int error, int stays) { target = n; failure = error; sticky = stays; }
void faulty_kill(long n, int half) { kill_at = n; torn = half; }
void faulty_end(void) { root_length = 0; target = kill_at = 0; }
long faulty_seen(void) { return atomic_load(&seen); }
int faulty_fired(void) { return fired; }
void faulty_record(const char *path) {
  if (log_file >= 0) close(log_file);
  log_file = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND, 0644) : -1;
}

static void put(const void *data, size_t size) {
  for (const char *p = data; size;) {
    long done = syscall(SYS_write, log_file, p, size);
    if (done <= 0) return;
    p += done;
    size -= done;
  }
}

// One line of the log: kind, place, sizes, then two paths and the data.
static void record(unsigned kind, const char *path, const char *other, int64_t at, const void *data,
                   uint32_t size) {
  if (log_file < 0) return;
  const char *a = path + (strncmp(path, root, root_length) ? 0 : root_length);
  const char *b = other ? other + (strncmp(other, root, root_length) ? 0 : root_length) : "";
  struct __attribute__((packed)) { uint32_t kind; int64_t at; uint32_t a, b, size; } head = {
    kind, at, strlen(a), strlen(b), data ? size : 0};
  pthread_mutex_lock(&lock);
  put(&head, sizeof head);
  put(a, head.a);
  put(b, head.b);
  put(data, head.size);
  pthread_mutex_unlock(&lock);
}
void faulty_note(const char *text) { record(NOTE, "", NULL, 0, text, strlen(text)); }

// ---- What is looked at ----

static int ours(const char *path) {
  return root_length && !strncmp(path, root, root_length) &&
         (path[root_length] == '/' || !path[root_length]);
}
static int of_file(int file, char *path) {
  if (!root_length) return 0;
  char link[32];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  long n = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
  if (n <= 0) return 0;
  path[n] = 0;
  return ours(path) && !strstr(path, " (deleted)");
}
static int of_name(int folder, const char *name, char *path) {
  if (!root_length || !name) return 0;
  if (name[0] == '/') {
    snprintf(path, PATH_MAX, "%s", name);
    return ours(path);
  }
  char base[PATH_MAX] = "";
  if (folder == AT_FDCWD) {
    if (syscall(SYS_getcwd, base, sizeof base) < 0) return 0;
  } else {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    long n = syscall(SYS_readlinkat, AT_FDCWD, link, base, sizeof base - 1);
    if (n <= 0) return 0;
    base[n] = 0;
  }
  snprintf(path, PATH_MAX, "%.3000s/%.1024s", base, name);
  return ours(path);
}

// Whether this operation fails. It may also be the last thing that this process does: then it is
// not done, or a write (`half` does it) only by half.
static int strikes(unsigned kind, void (*half)(void *), void *of) {
  if (!(kind & kinds)) return 0;
  long n = atomic_fetch_add(&seen, 1) + 1;
  if (kill_at && n == kill_at) {
    if (torn && half) half(of);
    kill(getpid(), SIGKILL);
    for (;;) pause();
  }
  if (target && (n == target || (sticky && n > target))) {
    fired = 1;
    errno = failure;
    return 1;
  }
  return 0;
}

// ---- Files and names ----

static int opened(int folder, const char *name, int flags, mode_t mode) {
  char path[PATH_MAX];
  int new = 0, watched = (flags & (O_CREAT | O_TRUNC)) && of_name(folder, name, path);
  if (watched) {
    new = syscall(SYS_faccessat, folder, name, F_OK) != 0 && (flags & O_CREAT);
    if ((new || (flags & O_TRUNC)) && strikes(MAKE, NULL, NULL)) return -1;
  }
  int file = (int)syscall(SYS_openat, folder, name, flags | O_LARGEFILE, mode);
  if (watched && file >= 0) {
    if (new) record(MAKE, path, NULL, 0, NULL, 0);
    else if (flags & O_TRUNC) record(RESIZE, path, NULL, 0, NULL, 0);
  }
  return file;
}
#define MODE \
  mode_t mode = 0; \
  if (flags & (O_CREAT | O_TMPFILE)) { va_list l; va_start(l, flags); mode = va_arg(l, mode_t); va_end(l); }
int open(const char *name, int flags, ...) { MODE return opened(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE return opened(AT_FDCWD, name, flags, mode); }
int openat(int folder, const char *name, int flags, ...) { MODE return opened(folder, name, flags, mode); }
int openat64(int folder, const char *name, int flags, ...) { MODE return opened(folder, name, flags, mode); }
int creat(const char *name, mode_t mode) { return opened(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }

static int renamed(int from, const char *a, int to, const char *b, unsigned flags) {
  char path[PATH_MAX], other[PATH_MAX];
  int watched = of_name(from, a, path) + of_name(to, b, other) == 2;
  if (watched && strikes(RENAME, NULL, NULL)) return -1;
  int done = (int)syscall(SYS_renameat2, from, a, to, b, flags);
  if (watched && !done) record(RENAME, path, other, 0, NULL, 0);
  return done;
}
int rename(const char *a, const char *b) { return renamed(AT_FDCWD, a, AT_FDCWD, b, 0); }
int renameat(int f, const char *a, int t, const char *b) { return renamed(f, a, t, b, 0); }
int renameat2(int f, const char *a, int t, const char *b, unsigned x) { return renamed(f, a, t, b, x); }

static int removed(int folder, const char *name, int flags) {
  char path[PATH_MAX];
  int watched = of_name(folder, name, path);
  if (watched && strikes(REMOVE, NULL, NULL)) return -1;
  int done = (int)syscall(SYS_unlinkat, folder, name, flags);
  if (watched && !done) record(REMOVE, path, NULL, 0, NULL, 0);
  return done;
}
int unlink(const char *name) { return removed(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return removed(AT_FDCWD, name, AT_REMOVEDIR); }
int unlinkat(int folder, const char *name, int flags) { return removed(folder, name, flags); }
int remove(const char *name) {
  int done = unlink(name);
  return done && errno == EISDIR ? rmdir(name) : done;
}

static int made(int folder, const char *name, mode_t mode) {
  char path[PATH_MAX];
  int watched = of_name(folder, name, path) && syscall(SYS_faccessat, folder, name, F_OK) != 0;
  if (watched && strikes(MKDIR, NULL, NULL)) return -1;
  int done = (int)syscall(SYS_mkdirat, folder, name, mode);
  if (watched && !done) record(MKDIR, path, NULL, 0, NULL, 0);
  return done;
}
int mkdir(const char *name, mode_t mode) { return made(AT_FDCWD, name, mode); }
int mkdirat(int folder, const char *name, mode_t mode) { return made(folder, name, mode); }

static int resized(int file, int64_t size) {
  char path[PATH_MAX];
  int watched = of_file(file, path);
  if (watched && strikes(RESIZE, NULL, NULL)) return -1;
  int done = (int)syscall(SYS_ftruncate, file, size);
  if (watched && !done) record(RESIZE, path, NULL, size, NULL, 0);
  return done;
}
int ftruncate(int file, off_t size) { return resized(file, size); }
int ftruncate64(int file, off64_t size) { return resized(file, size); }

static int synced(int file, long how) {
  char path[PATH_MAX];
  int watched = of_file(file, path);
  if (watched && strikes(SYNC, NULL, NULL)) return -1;
  int done = (int)syscall(how, file);
  if (watched && !done) record(SYNC, path, NULL, 0, NULL, 0);
  return done;
}
int fsync(int file) { return synced(file, SYS_fsync); }
int fdatasync(int file) { return synced(file, SYS_fdatasync); }

// ---- Bytes ----

struct piece { int file; const void *data; size_t size; int64_t at; };
static void half_of(void *of) {
  struct piece *p = of;
  if (p->at < 0) syscall(SYS_write, p->file, p->data, p->size / 2);
  else syscall(SYS_pwrite64, p->file, p->data, p->size / 2, p->at);
}

static ssize_t written(int file, const void *data, size_t size, int64_t at) {
  char path[PATH_MAX];
  if (!of_file(file, path))
    return at < 0 ? syscall(SYS_write, file, data, size) : syscall(SYS_pwrite64, file, data, size, at);
  struct piece piece = {file, data, size, at};
  if (strikes(WRITE, half_of, &piece)) return -1;
  int64_t where = at;
  if (at < 0) {
    where = syscall(SYS_lseek, file, 0, SEEK_CUR);
    struct stat found;
    if ((syscall(SYS_fcntl, file, F_GETFL) & O_APPEND) && !fstat(file, &found)) where = found.st_size;
  }
  long done = at < 0 ? syscall(SYS_write, file, data, size)
                     : syscall(SYS_pwrite64, file, data, size, at);
  if (done > 0) record(WRITE, path, NULL, where, data, done);
  return done;
}
ssize_t write(int file, const void *data, size_t size) { return written(file, data, size, -1); }
ssize_t pwrite(int file, const void *data, size_t size, off_t at) { return written(file, data, size, at); }
ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) { return written(file, data, size, at); }

static ssize_t gathered(int file, const struct iovec *pieces, int count, int64_t at) {
  ssize_t total = 0;
  for (int i = 0; i < count; i++) {
    if (!pieces[i].iov_len) continue;
    ssize_t done = written(file, pieces[i].iov_base, pieces[i].iov_len, at < 0 ? -1 : at + total);
    if (done < 0) return total ? total : -1;
    total += done;
    if ((size_t)done < pieces[i].iov_len) break;
  }
  return total;
}
ssize_t writev(int file, const struct iovec *p, int n) {
  char path[PATH_MAX];
  if (!of_file(file, path)) return syscall(SYS_writev, file, p, n);
  return gathered(file, p, n, -1);
}
ssize_t pwritev(int file, const struct iovec *p, int n, off_t at) { return gathered(file, p, n, at); }
ssize_t pwritev64(int file, const struct iovec *p, int n, off64_t at) { return gathered(file, p, n, at); }

// NumPy writes arrays through C's own buffers, which call no write() that can be seen.
size_t fwrite(const void *data, size_t size, size_t count, FILE *stream) {
  static size_t (*real)(const void *, size_t, size_t, FILE *);
  if (!real) real = (size_t (*)(const void *, size_t, size_t, FILE *))dlsym(RTLD_NEXT, "fwrite");
  char path[PATH_MAX];
  int file = fileno(stream);
  if (file < 0 || !of_file(file, path)) return real(data, size, count, stream);
  fflush(stream);
  ssize_t done = written(file, data, size * count, -1);
  if (done > 0) fseeko(stream, syscall(SYS_lseek, file, 0, SEEK_CUR), SEEK_SET);
  return done == (ssize_t)(size * count) ? count : 0;
}

ssize_t read(int file, void *data, size_t size) {
  char path[PATH_MAX];
  if ((kinds & READ) && of_file(file, path) && strikes(READ, NULL, NULL)) return -1;
  return syscall(SYS_read, file, data, size);
}
static ssize_t read_at(int file, void *data, size_t size, int64_t at) {
  char path[PATH_MAX];
  if ((kinds & READ) && of_file(file, path) && strikes(READ, NULL, NULL)) return -1;
  return syscall(SYS_pread64, file, data, size, at);
}
ssize_t pread(int file, void *data, size_t size, off_t at) { return read_at(file, data, size, at); }
ssize_t pread64(int file, void *data, size_t size, off64_t at) { return read_at(file, data, size, at); }
