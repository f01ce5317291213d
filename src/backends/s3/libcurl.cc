#include "backends/s3/libcurl.h"

#include <cstdlib>

#include "backends/client/library.h"

namespace prism::s3 {
namespace {

Result<Libcurl> open() {
  PRISM_TRY(const auto library, client::Library::open("libcurl.so.4", "libcurl4"));
  Libcurl out;
#define X(name) PRISM_CHECK(library.find(#name, out.name));
  PRISM_LIBCURL_FUNCTIONS(X)
#undef X
  if (out.curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
    return fail(Code::failed_precondition, "BACKEND_LIBRARY_MISSING", "libcurl cannot be initialised");
  }
  return out;
}

const Result<Libcurl>& loaded() {
  static const auto all = open();
  return all;
}

}  // namespace

Result<void> load_libcurl() {
  if (!loaded()) return fail(loaded().error());
  return {};
}

const Libcurl& curl() {
  if (!loaded()) std::abort();
  return *loaded();
}

}  // namespace prism::s3
