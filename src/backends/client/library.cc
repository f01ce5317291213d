#include "backends/client/library.h"

#include <dlfcn.h>

namespace prism::client {

Result<Library> Library::open(const char* name, std::string_view package) {
  void* const handle = ::dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (handle == nullptr) {
    return fail(Code::failed_precondition, "BACKEND_LIBRARY_MISSING",
                std::string("the client library cannot be loaded: ") + ::dlerror(),
                "install the package " + std::string(package));
  }
  return Library(handle, name);
}

Result<void*> Library::address_of(const char* symbol) const {
  void* const found = ::dlsym(handle_, symbol);
  if (found == nullptr) {
    return fail(Code::failed_precondition, "BACKEND_LIBRARY_MISSING", name_ + " of this system has no " + symbol,
                "install the version of the library that this program was built with, or a later one");
  }
  return found;
}

}  // namespace prism::client
