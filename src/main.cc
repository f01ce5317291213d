#include "cli/command.h"

// Read by jemalloc (https://jemalloc.net/jemalloc.3.html#tuning), with which the program is linked: messages are made
// on one thread and freed on another, which costs the C library's allocator a third of a stream's processor time. One
// arena behind the threads' caches keeps little back, and what is free for a second goes back to the system.
extern "C" const char* malloc_conf;
const char* malloc_conf = "narenas:1,dirty_decay_ms:1000,muzzy_decay_ms:0,tcache_max:16384";

int main(int argc, char** argv) { return prism::cli::run(argc, argv); }
