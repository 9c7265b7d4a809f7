/* A library for LD_PRELOAD that counts what a process changes below a folder, and at a chosen change does harm.

   plan_fault() is called by the process itself (support/fork_server.py). Paths that begin with `folder` count.
   Every change is a line "<call> <path>" of the log. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { COUNT, KILL_BEFORE, KILL_AFTER, TEAR, FAIL_ONCE, FAIL_FROM, SLOW_FROM, CLOCK_FROM };
enum { NAMES = 1, CONTENT = 2, GROWTH = 4, REMOVAL = 8, SYNC = 16, READING = 32 };

static char folder[4096];
static int kind = -1, code, journal = -1, which = ~READING;
static long at, count;
static time_t clock_offset;

void plan_fault(const char *path, const char *log, int what, long number, int value)
{
    snprintf(folder, sizeof folder, "%s", path);
    journal = log[0] ? syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    at = number, code = value, count = 0, clock_offset = 0;
    which = ~READING;
    if (what == FAIL_FROM && value == ENOSPC) which = GROWTH;
    if (what == FAIL_FROM && value == EROFS) which = NAMES;
    if (what == FAIL_FROM && value == ESTALE) which = ~0;
    kind = what;
}

static void die(void)
{
    kill(0, SIGKILL);
    for (;;) pause();
}

static const char *full(int dir, const char *path, char *out)
{
    char link[64], base[4096] = "";
    if (path && path[0] == '/') return path;
    if (dir == AT_FDCWD) {
        if (!getcwd(base, sizeof base)) return "";
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        ssize_t size = readlink(link, base, sizeof base - 1);
        base[size > 0 ? size : 0] = 0;
    }
    snprintf(out, 8192, path && path[0] ? "%s/%s" : "%s", base, path);
    return out;
}

/* Note a change; -1 (with errno) where it has to fail, 1 where it has to be torn, 2 where the process dies after it. */
static int meet(const char *call, int group, int dir, const char *path)
{
    char buffer[8192], line[9000];
    if (kind < 0) return 0;
    const char *whole = full(dir, path, buffer);
    if (strncmp(whole, folder, strlen(folder))) return 0;
    int is_change = !(group & READING);
    long number = is_change ? __sync_add_and_fetch(&count, 1) : count;
    if (is_change && journal >= 0) {
        int size = snprintf(line, sizeof line, "%s %s\n", call, whole + strlen(folder));
        syscall(SYS_write, journal, line, size);
    }
    int is_here = is_change && number == at, is_from = number >= at && (group & which);
    if (kind == KILL_BEFORE && is_here) die();
    if (kind == TEAR && is_here) return 1;
    if (kind == KILL_AFTER && is_here) return 2;
    if ((kind == FAIL_ONCE && is_here) || (kind == FAIL_FROM && is_from)) { errno = code; return -1; }
    if (kind == SLOW_FROM && number >= at) usleep(code * 1000);
    if (kind == CLOCK_FROM && number >= at) clock_offset = -code;
    return 0;
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, name)
#define CHANGE(name, group, dir, path, failed, call) do { \
    int met = meet(name, group, dir, path); \
    if (met < 0) return failed; \
    if (met == 1) die(); \
    __typeof__(call) result = call; \
    if (met == 2) die(); \
    return result; } while (0)

static int group_of(int flags)
{
    if (flags & (O_CREAT | O_TRUNC)) return NAMES | GROWTH;
    return flags & (O_WRONLY | O_RDWR) ? NAMES : READING;
}

#define OPEN(name) int name(const char *path, int flags, ...) { \
    va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more); \
    REAL(int, #name, const char *, int, ...); \
    CHANGE("open", group_of(flags), AT_FDCWD, path, -1, real(path, flags, mode)); }
OPEN(open)
OPEN(open64)

#define OPENAT(name) int name(int dir, const char *path, int flags, ...) { \
    va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more); \
    REAL(int, #name, int, const char *, int, ...); \
    CHANGE("open", group_of(flags), dir, path, -1, real(dir, path, flags, mode)); }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name) FILE *name(const char *path, const char *mode) { \
    REAL(FILE *, #name, const char *, const char *); \
    CHANGE("open", strpbrk(mode, "wa+") ? NAMES | GROWTH : READING, AT_FDCWD, path, NULL, real(path, mode)); }
FOPEN(fopen)
FOPEN(fopen64)

ssize_t write(int file, const void *data, size_t size)
{
    REAL(ssize_t, "write", int, const void *, size_t);
    int met = file > 2 ? meet("write", CONTENT | GROWTH, file, "") : 0;
    if (met < 0) return -1;
    ssize_t done = real(file, data, met == 1 ? size / 2 : size);
    if (met) die();
    return done;
}

ssize_t writev(int file, const struct iovec *parts, int number)
{
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    int met = meet("write", CONTENT | GROWTH, file, "");
    if (met < 0) return -1;
    ssize_t done = real(file, parts, met == 1 ? number / 2 : number);
    if (met) die();
    return done;
}

size_t fwrite(const void *data, size_t size, size_t number, FILE *file)
{
    REAL(size_t, "fwrite", const void *, size_t, size_t, FILE *);
    int met = file == stdout || file == stderr ? 0 : meet("write", CONTENT | GROWTH, fileno(file), "");
    if (met < 0) return 0;
    size_t done = real(data, size, met == 1 ? number / 2 : number, file);
    if (met) fflush(file), die();
    return done;
}

#define PWRITE(name) ssize_t name(int file, const void *data, size_t size, off_t place) { \
    REAL(ssize_t, #name, int, const void *, size_t, off_t); \
    CHANGE("write", CONTENT | GROWTH, file, "", -1, real(file, data, size, place)); }
PWRITE(pwrite)
PWRITE(pwrite64)

#define SENDFILE(name) ssize_t name(int out, int in, off_t *place, size_t size) { \
    REAL(ssize_t, #name, int, int, off_t *, size_t); \
    CHANGE("write", CONTENT | GROWTH, out, "", -1, real(out, in, place, size)); }
SENDFILE(sendfile)
SENDFILE(sendfile64)

#define TRUNCATE(name) int name(int file, off_t size) { \
    REAL(int, #name, int, off_t); \
    CHANGE("truncate", CONTENT, file, "", -1, real(file, size)); }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

int fsync(int file)
{
    REAL(int, "fsync", int);
    CHANGE("sync", SYNC, file, "", -1, real(file));
}

int rename(const char *from, const char *to)
{
    REAL(int, "rename", const char *, const char *);
    CHANGE("rename", NAMES, AT_FDCWD, to, -1, real(from, to));
}

int unlink(const char *path)
{
    REAL(int, "unlink", const char *);
    CHANGE("remove", NAMES | REMOVAL, AT_FDCWD, path, -1, real(path));
}

int unlinkat(int dir, const char *path, int flags)
{
    REAL(int, "unlinkat", int, const char *, int);
    CHANGE("remove", NAMES | REMOVAL, dir, path, -1, real(dir, path, flags));
}

int rmdir(const char *path)
{
    REAL(int, "rmdir", const char *);
    CHANGE("remove", NAMES | REMOVAL, AT_FDCWD, path, -1, real(path));
}

int mkdir(const char *path, mode_t mode)
{
    REAL(int, "mkdir", const char *, mode_t);
    CHANGE("mkdir", NAMES | GROWTH, AT_FDCWD, path, -1, real(path, mode));
}

int stat(const char *path, struct stat *found)
{
    REAL(int, "stat", const char *, struct stat *);
    CHANGE("stat", READING, AT_FDCWD, path, -1, real(path, found));
}

int clock_gettime(clockid_t which_clock, struct timespec *now)
{
    REAL(int, "clock_gettime", clockid_t, struct timespec *);
    int failed = real(which_clock, now);
    if (which_clock == CLOCK_REALTIME) now->tv_sec += clock_offset;
    return failed;
}

time_t time(time_t *now)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}
