/* Lets calls that change files fail: preloaded into a process, for test_store_faults.py.

   fail_at(n, number, lasting): the n-th call from now on, counted from 0, fails with this errno,
   and with lasting every later write; number 0 writes half of what it is given first. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/types.h>
#include <unistd.h>

static long left = -1;
static int number, lasting, failed;

void fail_at(long n, int error, int last) { left = n; number = error; lasting = last; failed = 0; }
int has_failed(void) { return failed; }

static int fails(int writes) {
    if (failed && lasting && writes) return 1;
    if (left < 0 || left-- > 0) return 0;
    return failed = 1;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define WRITES(name, params, args) \
    ssize_t name params { \
        REAL(name); \
        if (f <= 2 || !fails(1)) return real args; \
        if (number == 0 && n > 1) { n /= 2; number = ENOSPC; return real args; } \
        errno = number ? number : ENOSPC; \
        return -1; \
    }
#define CHANGES(name, params, args, writes) \
    int name params { \
        REAL(name); \
        if (!fails(writes)) return real args; \
        errno = number ? number : EIO; \
        return -1; \
    }

WRITES(write, (int f, const void *b, size_t n), (f, b, n))
WRITES(pwrite, (int f, const void *b, size_t n, off_t o), (f, b, n, o))
WRITES(pwrite64, (int f, const void *b, size_t n, off64_t o), (f, b, n, o))
CHANGES(ftruncate, (int f, off_t o), (f, o), 0)
CHANGES(ftruncate64, (int f, off64_t o), (f, o), 0)
CHANGES(fsync, (int f), (f), 0)
CHANGES(fdatasync, (int f), (f), 0)
CHANGES(rename, (const char *a, const char *b), (a, b), 0)
CHANGES(link, (const char *a, const char *b), (a, b), 0)
CHANGES(unlink, (const char *a), (a), 0)
