#include "backends/postgres/libpq.h"

#include <cstdlib>

#include "backends/client/library.h"

namespace prism::postgres {
namespace {

Result<Libpq> open() {
  PRISM_TRY(const auto library, client::Library::open("libpq.so.5", "libpq5"));
  Libpq out;
#define X(name) PRISM_CHECK(library.find(#name, out.name));
  PRISM_LIBPQ_FUNCTIONS(X)
#undef X
  return out;
}

const Result<Libpq>& loaded() {
  static const auto all = open();
  return all;
}

}  // namespace

Result<void> load_libpq() {
  if (!loaded()) return fail(loaded().error());
  return {};
}

const Libpq& pq() {
  if (!loaded()) std::abort();
  return *loaded();
}

}  // namespace prism::postgres
