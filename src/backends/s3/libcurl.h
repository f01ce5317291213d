// libcurl, loaded when the first backend is connected (backends/client/library.h).
#pragma once

#include <curl/curl.h>

#include "base/error.h"

namespace prism::s3 {

// clang-format off
#define PRISM_LIBCURL_FUNCTIONS(X) \
  X(curl_easy_cleanup) \
  X(curl_easy_getinfo) \
  X(curl_easy_init) \
  X(curl_easy_pause) \
  X(curl_easy_setopt) \
  X(curl_easy_strerror) \
  X(curl_getdate) \
  X(curl_global_init) \
  X(curl_multi_add_handle) \
  X(curl_multi_cleanup) \
  X(curl_multi_info_read) \
  X(curl_multi_init) \
  X(curl_multi_remove_handle) \
  X(curl_multi_setopt) \
  X(curl_multi_socket_action) \
  X(curl_multi_strerror) \
  X(curl_slist_append) \
  X(curl_slist_free_all)
// clang-format on

// NOLINTBEGIN(readability-identifier-naming,bugprone-macro-parentheses): the library's own names
struct Libcurl {
#define X(name) decltype(&::name) name = nullptr;
  PRISM_LIBCURL_FUNCTIONS(X)
#undef X
};
// NOLINTEND(readability-identifier-naming,bugprone-macro-parentheses)

// Loads it where that has not been done. Takes some milliseconds. BACKEND_LIBRARY_MISSING. Any thread.
Result<void> load_libcurl();
// Its functions. load_libcurl() has been good, or is tried now: then without it the program ends.
const Libcurl& curl();

}  // namespace prism::s3
