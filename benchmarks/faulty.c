// Between a program and its disk: counts, fails, kills at, and records what is done below a folder.
//
//   LD_PRELOAD=faulty.so python ...      see faulty.py, which compiles it and speaks to it
//
// Whatever calls the C library is seen: Python, NumPy, SQLite inside of apsw, TensorStore under
// Orbax, usearch. Nothing of the program is changed for it, and without the library nothing of it is
// there. What a record cannot do again is UNSEEN in it. Modes, owners and times are not looked at.

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
#include <stdio_ext.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MAKE = 1, WRITE = 2, SYNC = 4, RENAME = 8, REMOVE = 16, MKDIR = 32, RESIZE = 64, READ = 128,
       NOTE = 256, LINK = 512, UNSEEN = 1024 };

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
    p += done, size -= done;
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
static void named(unsigned kind, const char *path) { record(kind, path, NULL, 0, NULL, 0); }
static void unseen(const char *path, const char *call) { record(UNSEEN, path, call, 0, NULL, 0); }

// ---- What is looked at ----

static int ours(const char *path) {
  return root_length && !strncmp(path, root, root_length) &&
         (path[root_length] == '/' || !path[root_length]);
}
static int linked(int file, char *path) {
  char link[32];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  long n = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
  path[n > 0 ? n : 0] = 0;
  return n > 0;
}
static int of_file(int file, char *path) {
  return root_length && file >= 0 && linked(file, path) && ours(path) && !strstr(path, " (deleted)");
}
static int of_name(int folder, const char *name, char *path) {
  if (!root_length || !name) return 0;
  if (name[0] == '/') {
    snprintf(path, PATH_MAX, "%s", name);
    return ours(path);
  }
  char base[PATH_MAX] = "";
  if (folder == AT_FDCWD ? syscall(SYS_getcwd, base, sizeof base) < 0 : !linked(folder, base)) return 0;
  snprintf(path, PATH_MAX, "%.3000s/%.1024s", base, name);
  return ours(path);
}

struct piece { int file; const void *data; size_t size; int64_t at; };
static long wrote(int file, const void *data, size_t size, int64_t at) {
  return at < 0 ? syscall(SYS_write, file, data, size) : syscall(SYS_pwrite64, file, data, size, at);
}
// Whether this operation fails. It may also be the last thing that this process does: then it is
// not done, or a write only by half.
static int strikes(unsigned kind, const struct piece *p) {
  if (!(kind & kinds)) return 0;
  long n = atomic_fetch_add(&seen, 1) + 1;
  if (kill_at && n == kill_at) {
    if (torn && p) wrote(p->file, p->data, p->size / 2, p->at);
    kill(getpid(), SIGKILL);
    for (;;) pause();
  }
  if (!target || !(n == target || (sticky && n > target))) return 0;
  fired = 1;
  errno = failure;
  return 1;
}

// Does something that returns 0 when it is done, and tells the record; or it fails.
#define DOES(watched, kind, what, tells) \
  int seen_ = (watched), done_ = seen_ && strikes(kind, NULL) ? -1 : (int)(what); \
  if (seen_ && !done_) tells; \
  return done_
#define ALIAS(name, of) __typeof__(of) name __attribute__((alias(#of)))
#define REAL(type, name, ...) \
  static type (*real)(__VA_ARGS__); \
  if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

// ---- Files and names ----

static int opened(int folder, const char *name, int flags, mode_t mode) {
  char path[PATH_MAX];
  int nameless = (flags & O_TMPFILE) == O_TMPFILE, new = 0;  // which are seen when they get a name
  int watched = (nameless || flags & (O_CREAT | O_TRUNC)) && of_name(folder, name, path);
  if (watched) {
    new = !nameless && (flags & O_CREAT) && syscall(SYS_faccessat, folder, name, F_OK) != 0;
    if ((new || nameless || (flags & O_TRUNC)) && strikes(MAKE, NULL)) return -1;
  }
  int file = (int)syscall(SYS_openat, folder, name, flags | O_LARGEFILE, mode);
  if (watched && file >= 0 && new) named(MAKE, path);
  else if (watched && file >= 0 && (flags & O_TRUNC)) named(RESIZE, path);
  return file;
}
#define MODE \
  mode_t mode = 0; \
  if (flags & (O_CREAT | O_TMPFILE)) { va_list l; va_start(l, flags); mode = va_arg(l, mode_t); va_end(l); }
int open(const char *name, int flags, ...) { MODE return opened(AT_FDCWD, name, flags, mode); }
int openat(int folder, const char *name, int flags, ...) { MODE return opened(folder, name, flags, mode); }
int __open_2(const char *name, int flags) { return opened(AT_FDCWD, name, flags, 0); }
int __openat_2(int folder, const char *name, int flags) { return opened(folder, name, flags, 0); }
int creat(const char *name, mode_t mode) { return opened(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
ALIAS(open64, open); ALIAS(openat64, openat); ALIAS(creat64, creat);
ALIAS(__open64_2, __open_2); ALIAS(__openat64_2, __openat_2);  // of -D_FORTIFY_SOURCE

FILE *fopen(const char *name, const char *mode) {
  REAL(FILE *, "fopen", const char *, const char *);
  char path[PATH_MAX];
  if (mode[0] == 'r' || !of_name(AT_FDCWD, name, path)) return real(name, mode);
  int flags = O_CREAT | (strchr(mode, '+') ? O_RDWR : O_WRONLY) | (mode[0] == 'a' ? O_APPEND : O_TRUNC);
  flags |= (strchr(mode, 'x') ? O_EXCL : 0) | (strchr(mode, 'e') ? O_CLOEXEC : 0);
  int file = opened(AT_FDCWD, name, flags, 0666);
  return file < 0 ? NULL : fdopen(file, mode);
}
ALIAS(fopen64, fopen);

int renameat2(int from, const char *a, int to, const char *b, unsigned flags) {
  char path[PATH_MAX], other[PATH_MAX];
  int out = of_name(from, a, path), into = of_name(to, b, other);
  if ((out || into) && strikes(RENAME, NULL)) return -1;
  int done = (int)syscall(SYS_renameat2, from, a, to, b, flags);
  if (done || !(out || into)) return done;
  if (!out || (flags & ~1u)) unseen(other, "rename");  // from elsewhere, or of two with each other
  else if (into) record(RENAME, path, other, 0, NULL, 0);
  else named(REMOVE, path);
  return done;
}
int renameat(int f, const char *a, int t, const char *b) { return renameat2(f, a, t, b, 0); }
int rename(const char *a, const char *b) { return renameat(AT_FDCWD, a, AT_FDCWD, b); }

int linkat(int from, const char *a, int to, const char *b, int flags) {
  char path[PATH_MAX], other[PATH_MAX];
  int known = of_name(from, a, path) && !(flags & AT_SYMLINK_FOLLOW);
  DOES(of_name(to, b, other), LINK, syscall(SYS_linkat, from, a, to, b, flags),
       known ? record(LINK, path, other, 0, NULL, 0) : unseen(other, "link"));
}
int link(const char *a, const char *b) { return linkat(AT_FDCWD, a, AT_FDCWD, b, 0); }
int symlinkat(const char *to, int folder, const char *name) {
  char path[PATH_MAX];
  DOES(of_name(folder, name, path), LINK, syscall(SYS_symlinkat, to, folder, name), unseen(path, "symlink"));
}
int symlink(const char *to, const char *name) { return symlinkat(to, AT_FDCWD, name); }

int unlinkat(int folder, const char *name, int flags) {
  char path[PATH_MAX];
  DOES(of_name(folder, name, path), REMOVE, syscall(SYS_unlinkat, folder, name, flags), named(REMOVE, path));
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }
int remove(const char *name) { return unlink(name) ? errno == EISDIR ? rmdir(name) : -1 : 0; }

int mkdirat(int folder, const char *name, mode_t mode) {
  char path[PATH_MAX];
  DOES(of_name(folder, name, path) && syscall(SYS_faccessat, folder, name, F_OK) != 0, MKDIR,
       syscall(SYS_mkdirat, folder, name, mode), named(MKDIR, path));
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

// A new file whose name has something else in the place of six letters before its ending.
int mkostemps(char *name, int ending, int flags) {
  static atomic_uint count;
  char *x = name + strlen(name) - ending - 6;
  if (ending < 0 || x < name || strncmp(x, "XXXXXX", 6)) return errno = EINVAL, -1;
  for (;;) {
    unsigned n = atomic_fetch_add(&count, 1) * 2654435761u + (unsigned)getpid() * 40503u;
    for (int i = 0; i < 6; i++, n /= 32) x[i] = "abcdefghijklmnopqrstuvwxyz012345"[n % 32];
    int file = opened(AT_FDCWD, name, flags | O_RDWR | O_CREAT | O_EXCL, 0600);
    if (file >= 0 || errno != EEXIST) return file;
  }
}
int mkostemp(char *name, int flags) { return mkostemps(name, 0, flags); }
int mkstemp(char *name) { return mkostemps(name, 0, 0); }
ALIAS(mkostemps64, mkostemps); ALIAS(mkostemp64, mkostemp); ALIAS(mkstemp64, mkstemp);

int ftruncate(int file, off_t size) {
  char path[PATH_MAX];
  DOES(of_file(file, path), RESIZE, syscall(SYS_ftruncate, file, size),
       record(RESIZE, path, NULL, size, NULL, 0));
}
int truncate(const char *name, off_t size) {
  char path[PATH_MAX];
  DOES(of_name(AT_FDCWD, name, path), RESIZE, syscall(SYS_truncate, name, size),
       record(RESIZE, path, NULL, size, NULL, 0));
}
ALIAS(ftruncate64, ftruncate); ALIAS(truncate64, truncate);

// Takes room before something is written there: a full disk says no.
int fallocate(int file, int mode, off_t at, off_t size) {
  char path[PATH_MAX];
  struct stat found;
  int grows = of_file(file, path) && !mode && !fstat(file, &found) && found.st_size < at + size;
  DOES(of_file(file, path), WRITE, syscall(SYS_fallocate, file, mode, at, size),
       grows ? record(RESIZE, path, NULL, at + size, NULL, 0)
             : mode & ~1 ? unseen(path, "fallocate") : (void)0);  // 1: the size stays
}
int posix_fallocate(int file, off_t at, off_t size) {
  int before = errno, why = fallocate(file, 0, at, size) ? errno : 0;
  return errno = before, why;
}
ALIAS(fallocate64, fallocate); ALIAS(posix_fallocate64, posix_fallocate);

int fsync(int file) {
  char path[PATH_MAX];
  DOES(of_file(file, path), SYNC, syscall(SYS_fsync, file), named(SYNC, path));
}
ALIAS(fdatasync, fsync);

// ---- Bytes that are written ----

static ssize_t written(int file, const void *data, size_t size, int64_t at) {
  char path[PATH_MAX];
  if (!of_file(file, path)) return wrote(file, data, size, at);
  if (strikes(WRITE, &(struct piece){file, data, size, at})) return -1;
  int64_t where = at;
  if (at < 0) {
    where = syscall(SYS_lseek, file, 0, SEEK_CUR);
    struct stat found;
    if ((syscall(SYS_fcntl, file, F_GETFL) & O_APPEND) && !fstat(file, &found)) where = found.st_size;
  }
  long done = wrote(file, data, size, at);
  if (done > 0) record(WRITE, path, NULL, where, data, done);
  return done;
}
ssize_t write(int file, const void *data, size_t size) { return written(file, data, size, -1); }
ssize_t pwrite(int file, const void *data, size_t size, off_t at) { return written(file, data, size, at); }
ALIAS(pwrite64, pwrite);

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
ssize_t pwritev2(int file, const struct iovec *p, int n, off_t at, int how) {
  char path[PATH_MAX];
  if (!of_file(file, path)) return syscall(SYS_pwritev2, file, p, n, at, 0L, how);
  return gathered(file, p, n, at);
}
ssize_t writev(int file, const struct iovec *p, int n) { return pwritev2(file, p, n, -1, 0); }
ssize_t pwritev(int file, const struct iovec *p, int n, off_t at) { return pwritev2(file, p, n, at, 0); }
ALIAS(pwritev64, pwritev); ALIAS(pwritev64v2, pwritev2);

// From file to file, as much at a time as is read here, or the record would not have it.
static ssize_t copied(int from, off_t *at, int to, off_t *into, size_t size) {
  static _Thread_local char data[1 << 16];
  if (size > sizeof data) size = sizeof data;
  ssize_t n = at ? pread(from, data, size, *at) : read(from, data, size), done = n;
  if (n > 0) done = written(to, data, n, into ? *into : -1);
  if (n > 0 && !at && done < n) syscall(SYS_lseek, from, (done < 0 ? 0 : done) - n, SEEK_CUR);
  if (at && done > 0) *at += done;
  if (into && done > 0) *into += done;
  return done;
}
ssize_t copy_file_range(int a, off_t *at, int b, off_t *into, size_t n, unsigned how) {
  char path[PATH_MAX];
  if (of_file(b, path)) return copied(a, at, b, into, n);
  return syscall(SYS_copy_file_range, a, at, b, into, n, how);
}
ssize_t sendfile(int to, int from, off_t *at, size_t n) {
  char path[PATH_MAX];
  return of_file(to, path) ? copied(from, at, to, NULL, n) : syscall(SYS_sendfile, to, from, at, n);
}
ALIAS(sendfile64, sendfile);

// NumPy and usearch write through C's own buffers, which call no write() that can be seen.
static int flushed(FILE *stream) {
  char path[PATH_MAX];
  size_t size = __fpending(stream);
  if (!size || !of_file(fileno(stream), path)) return 0;
  ssize_t done = written(fileno(stream), stream->_IO_write_base, size, -1);
  __fpurge(stream);
  return done == (ssize_t)size ? 0 : EOF;
}
int fflush(FILE *stream) {
  REAL(int, "fflush", FILE *);
  return stream && flushed(stream) ? EOF : real(stream);
}
int fclose(FILE *stream) {
  REAL(int, "fclose", FILE *);
  int lost = flushed(stream), why = errno, done = real(stream);
  return lost ? (errno = why, lost) : done;
}
size_t fwrite(const void *data, size_t size, size_t count, FILE *stream) {
  REAL(size_t, "fwrite", const void *, size_t, size_t, FILE *);
  char path[PATH_MAX];
  int file = fileno(stream);
  if (!of_file(file, path)) return real(data, size, count, stream);
  ssize_t done = fflush(stream) ? -1 : written(file, data, size * count, -1);
  if (done > 0) fseeko(stream, syscall(SYS_lseek, file, 0, SEEK_CUR), SEEK_SET);
  if (done != (ssize_t)(size * count)) stream->_flags |= 0x20;  // what ferror() looks at
  return done == (ssize_t)(size * count) ? count : 0;
}

// ---- Bytes that are read ----

static int unread(int file) {
  char path[PATH_MAX];
  return (kinds & READ) && of_file(file, path) && strikes(READ, NULL);
}
ssize_t read(int file, void *data, size_t size) {
  return unread(file) ? -1 : syscall(SYS_read, file, data, size);
}
ssize_t pread(int file, void *data, size_t size, off_t at) {
  return unread(file) ? -1 : syscall(SYS_pread64, file, data, size, at);
}
ssize_t preadv2(int file, const struct iovec *p, int n, off_t at, int how) {
  return unread(file) ? -1 : syscall(SYS_preadv2, file, p, n, at, 0L, how);
}
ssize_t readv(int file, const struct iovec *p, int n) { return preadv2(file, p, n, -1, 0); }
ssize_t preadv(int file, const struct iovec *p, int n, off_t at) { return preadv2(file, p, n, at, 0); }
ALIAS(pread64, pread); ALIAS(preadv64, preadv); ALIAS(preadv64v2, preadv2);
size_t fread(void *data, size_t size, size_t count, FILE *stream) {
  REAL(size_t, "fread", void *, size_t, size_t, FILE *);
  if (!(kinds & READ) || !unread(fileno(stream))) return real(data, size, count, stream);
  stream->_flags |= 0x20;
  return 0;
}

// What is written into a file's pages, no record has; of SQLite's index of its log none is needed.
void *mmap(void *where, size_t size, int access, int flags, int file, off_t at) {
  char path[PATH_MAX];
  if (of_file(file, path) && strcmp(path + strlen(path) - 4, "-shm")) {
    int writes = (flags & MAP_SHARED) && (access & PROT_WRITE);
    if (strikes(writes ? WRITE : READ, NULL)) return MAP_FAILED;
    if (writes) unseen(path, "mmap");
  }
  return (void *)syscall(SYS_mmap, where, size, access, flags, file, at);
}
ALIAS(mmap64, mmap);
