/* Sleeps by the kernel's own clock: libfaketime 0.9.10 refuses those on the monotonic clock when it
 * is told to leave that one alone (EINVAL). Loaded before it by `chaos_world.Clock`. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left)
{
    int before = errno;
    int failed = syscall(SYS_clock_nanosleep, clock, flags, until, left) ? errno : 0;
    errno = before;
    return failed;
}
