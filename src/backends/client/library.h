// Client libraries that are loaded when the first backend of their type is connected: with all that they need
// themselves they would cost a process that has no such backend some megabytes.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"

namespace prism::client {

// A shared library, never unloaded: its threads and its state may outlive every user. Any thread.
class Library {
 public:
  // By its name with the version of its interface, "libpq.so.5". BACKEND_LIBRARY_MISSING; `package`: where to get it.
  static Result<Library> open(const char* name, std::string_view package);

  // Sets a pointer to a function of it. BACKEND_LIBRARY_MISSING: the library is too old.
  template <class Function>
  Result<void> find(const char* symbol, Function*& function) const {
    PRISM_TRY(void* const found, address_of(symbol));
    function = reinterpret_cast<Function*>(found);
    return {};
  }

 private:
  Library(void* handle, std::string name) : handle_(handle), name_(std::move(name)) {}
  Result<void*> address_of(const char* symbol) const;

  void* handle_;
  std::string name_;
};

}  // namespace prism::client
