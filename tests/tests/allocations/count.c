/* Counts a program's heap allocations when it is preloaded (ld.so(8)). How many there were, and how many bytes they asked for,
 * stands in the file of 16 bytes that COUNT_ALLOCATIONS names, for another process to read while the program runs. */

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* glibc's own, under names that nobody takes the place of. */
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static _Atomic unsigned long at_first[2];
static _Atomic unsigned long *counts = at_first;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("COUNT_ALLOCATIONS");
    int file = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (file < 0)
        return;
    void *page = mmap(NULL, sizeof at_first, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (page != MAP_FAILED)
        counts = page;
    /* What the program starts is not counted. */
    unsetenv("LD_PRELOAD");
}

static void count(size_t bytes) {
    atomic_fetch_add_explicit(&counts[0], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&counts[1], bytes, memory_order_relaxed);
}

void *malloc(size_t bytes) {
    count(bytes);
    return __libc_malloc(bytes);
}

void *calloc(size_t number, size_t bytes) {
    count(number * bytes);
    return __libc_calloc(number, bytes);
}

/* Growing may copy everything: it counts as a new one. */
void *realloc(void *old, size_t bytes) {
    count(bytes);
    return __libc_realloc(old, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes) {
    count(bytes);
    return __libc_memalign(alignment, bytes);
}

int posix_memalign(void **made, size_t alignment, size_t bytes) {
    count(bytes);
    void *memory = __libc_memalign(alignment, bytes);
    if (memory == NULL)
        return ENOMEM;
    *made = memory;
    return 0;
}
