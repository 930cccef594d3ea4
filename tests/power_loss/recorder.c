/* Recorder of what a process does to the files under a folder: writes, cuts, syncs, renames, removals, in one order.
 * Preloaded into the hub by tests/power_loss.rs, which replays the record up to some point and drops what was not
 * synced by then.
 *
 * RECORD_UNDER  the folder          RECORD_TO  the record
 * FAIL_SYNC     while this file exists, syncs of files whose name ends with "-wal" fail
 *
 * A record: op, length of path, length of second path, offset, length; the paths; the bytes of a write. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *under, *fail;
static int record = -1;

__attribute__((constructor)) static void begin(void) {
    const char *to = getenv("RECORD_TO");
    under = getenv("RECORD_UNDER");
    fail = getenv("FAIL_SYNC");
    if (to && under) record = (int)syscall(SYS_openat, AT_FDCWD, to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_ours(const char *path) { return record >= 0 && strncmp(path, under, strlen(under)) == 0; }

static int path_of(int fd, char *path) {
    char link[64];
    if (record < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, 4095);
    if (length < 0) return 0;
    path[length] = 0;
    return is_ours(path);
}

static void note(char op, const char *path, const char *second, uint64_t offset, const void *bytes, uint64_t length) {
    struct __attribute__((packed)) { char op; uint32_t path, second; uint64_t offset, length; } head = {
        op, (uint32_t)strlen(path), (uint32_t)strlen(second), offset, length};
    struct iovec parts[4] = {{&head, sizeof head}, {(void *)path, head.path}, {(void *)second, head.second},
                             {(void *)bytes, bytes ? length : 0}};
    if (syscall(SYS_writev, record, parts, 4) < 0) abort();
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

ssize_t write(int fd, const void *bytes, size_t count) {
    REAL(ssize_t, "write", int, const void *, size_t);
    char path[4096];
    if (!path_of(fd, path)) return real(fd, bytes, count);
    pthread_mutex_lock(&lock);
    off_t offset = lseek(fd, 0, SEEK_CUR);
    ssize_t done = real(fd, bytes, count);
    int error = errno;
    if (done > 0) note('W', path, "", (uint64_t)offset, bytes, (uint64_t)done);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

static ssize_t write_at(ssize_t (*real)(int, const void *, size_t, off_t), int fd, const void *bytes, size_t count, off_t offset) {
    char path[4096];
    if (!path_of(fd, path)) return real(fd, bytes, count, offset);
    pthread_mutex_lock(&lock);
    ssize_t done = real(fd, bytes, count, offset);
    int error = errno;
    if (done > 0) note('W', path, "", (uint64_t)offset, bytes, (uint64_t)done);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    return write_at(real, fd, bytes, count, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t offset) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t);
    return write_at(real, fd, bytes, count, offset);
}

static int cut(int (*real)(int, off_t), int fd, off_t length) {
    char path[4096];
    if (!path_of(fd, path)) return real(fd, length);
    pthread_mutex_lock(&lock);
    int done = real(fd, length), error = errno;
    if (done == 0) note('T', path, "", (uint64_t)length, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

int ftruncate(int fd, off_t length) {
    REAL(int, "ftruncate", int, off_t);
    return cut(real, fd, length);
}

int ftruncate64(int fd, off_t length) {
    REAL(int, "ftruncate64", int, off_t);
    return cut(real, fd, length);
}

static int sync_file(int (*real)(int), int fd) {
    char path[4096];
    if (!path_of(fd, path)) return real(fd);
    size_t length = strlen(path);
    if (fail && length > 4 && strcmp(path + length - 4, "-wal") == 0 && access(fail, F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    pthread_mutex_lock(&lock);
    int done = real(fd), error = errno;
    if (done == 0) note('S', path, "", 0, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    return sync_file(real, fd);
}

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    return sync_file(real, fd);
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    if (!is_ours(from)) return real(from, to);
    pthread_mutex_lock(&lock);
    int done = real(from, to), error = errno;
    if (done == 0) note('R', from, to, 0, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    if (!is_ours(path)) return real(path);
    pthread_mutex_lock(&lock);
    int done = real(path), error = errno;
    if (done == 0) note('U', path, "", 0, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}
